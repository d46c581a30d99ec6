//! Where nodes of the graph are, and how edges run between them.

use std::collections::BTreeMap;

use circuitscope_core::{HeadId, Node, Port};
use circuitscope_measures::cards::Link;

use crate::svg::Point;

pub(super) const WIDTH: f64 = 760.0;
const LEFT: f64 = 50.0;
/// Where the column of MLPs begins.
const LANE: f64 = 676.0;
pub(super) const HEAD: Point = (70.0, 32.0);
pub(super) const MLP: Point = (66.0, 20.0);
pub(super) const BAR: f64 = 22.0;
const APART: f64 = 82.0;
/// Heads side by side; a layer with more has several rows.
const ABREAST: usize = 7;
const ROW: f64 = 66.0;
/// Height of a layer with an MLP alone.
const MLP_ROW: f64 = 30.0;
const TOP: f64 = 8.0;
const SWEEPS: usize = 12;

/// Middles of nodes, and the height of it all.
pub(super) struct Layout {
    places: BTreeMap<Node, Point>,
    /// Names of layers and their heights.
    pub(super) layers: Vec<(usize, f64)>,
    pub(super) height: f64,
}

/// A cubic curve: its ends and what bends it.
pub(super) type Curve = [Point; 4];

impl Layout {
    /// Of heads, and of what edges join.
    pub(super) fn of(heads: &[HeadId], edges: &[Link]) -> Self {
        let mut nodes: Vec<Node> = heads.iter().copied().map(Node::Head).collect();
        nodes.extend(edges.iter().flat_map(|link| [link.writer, link.reader]));
        nodes.sort_unstable();
        nodes.dedup();
        let mut layers: BTreeMap<usize, (Vec<HeadId>, bool)> = BTreeMap::new();
        for node in nodes {
            match node {
                Node::Head(head) => layers.entry(head.layer).or_default().0.push(head),
                Node::Mlp(layer) => layers.entry(layer).or_default().1 = true,
                Node::Input | Node::Logits => {}
            }
        }
        let mut rows = Rows::new(&layers, edges);
        for _ in 0..SWEEPS {
            rows.sweep();
        }
        rows.stretch();
        rows.finish(&layers)
    }

    pub(super) fn place(&self, node: Node) -> Option<Point> {
        self.places.get(&node).copied()
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (Node, Point)> {
        self.places.iter().map(|(node, place)| (*node, *place))
    }

    /// Upper left corner and size of a node.
    fn rect(node: Node, (x, y): Point) -> (Point, Point) {
        let (width, height) = match node {
            Node::Head(_) => HEAD,
            Node::Mlp(_) => MLP,
            Node::Input | Node::Logits => (0.0, 0.0),
        };
        ((x - width / 2.0, y - height / 2.0), (width, height))
    }

    /// An edge that runs behind as few other nodes as it can.
    pub(super) fn curve(&self, link: &Link) -> Option<Curve> {
        let (from, to) = (self.place(link.writer)?, self.place(link.reader)?);
        let shift = match (link.reader, link.port) {
            (Node::Head(_), Some(Port::Q)) => -20.0,
            (Node::Head(_), Some(Port::V)) => 20.0,
            _ => 0.0,
        };
        let half = |node: Node| match node {
            Node::Head(_) => HEAD.1 / 2.0,
            Node::Mlp(_) => MLP.1 / 2.0,
            Node::Input | Node::Logits => BAR / 2.0,
        };
        // The bar of an edge that works against the behaviour stands off what it enters.
        let gap = if link.weight < 0.0 { 5.0 } else { 1.0 };
        let bends = [0.0, 22.0, -22.0, 45.0, -45.0, 70.0, -70.0, 100.0, -100.0];
        let curves = bends.iter().map(|bend| {
            let inside = |x: f64| x.clamp(LEFT, WIDTH - 8.0);
            // An edge from the input or into the logits ends anywhere on them.
            let x1 = match link.writer {
                Node::Input => inside(to.0 + shift + bend),
                _ => from.0,
            };
            let x2 = match link.reader {
                Node::Logits => inside(from.0 + bend),
                _ => to.0 + shift,
            };
            let end = (x2, to.1 + half(link.reader) + gap);
            if matches!(link.writer, Node::Mlp(_)) {
                // MLPs stand above one another: edges leave them to the left.
                let start = (from.0 - MLP.0 / 2.0, from.1);
                let aside = inside(start.0 - 40.0 - bend.abs());
                let reach = ((start.1 - end.1) * 0.6).max(24.0);
                return [
                    start,
                    (aside, start.1),
                    (inside(x2 + bend), end.1 + reach),
                    end,
                ];
            }
            let start = (x1, from.1 - half(link.writer));
            let reach = ((start.1 - end.1) * 0.5).max(18.0);
            [
                start,
                (inside(x1 + bend), start.1 - reach),
                (inside(x2 + bend), end.1 + reach),
                end,
            ]
        });
        let curves: Vec<(usize, Curve)> = curves.map(|c| (self.behind(link, &c), c)).collect();
        let best = curves.into_iter().min_by_key(|(behind, _)| *behind);
        best.map(|(_, curve)| curve)
    }

    /// Behind how much of other nodes a curve runs.
    fn behind(&self, link: &Link, curve: &Curve) -> usize {
        let others: Vec<(Point, Point)> = self
            .nodes()
            .filter(|(node, _)| *node != link.writer && *node != link.reader)
            .map(|(node, place)| Self::rect(node, place))
            .collect();
        let steps = 40;
        let inside = |at: &i32| {
            let (x, y) = point(curve, f64::from(*at) / f64::from(steps));
            others.iter().any(|((left, top), (width, height))| {
                x > left - 3.0 && x < left + width + 3.0 && y > top - 3.0 && y < top + height + 3.0
            })
        };
        (1..steps).filter(inside).count()
    }
}

/// A point of a curve.
fn point([a, b, c, d]: &Curve, t: f64) -> Point {
    let u = 1.0 - t;
    let mix = |a: f64, b: f64, c: f64, d: f64| {
        u * u * u * a + 3.0 * u * u * t * b + 3.0 * u * t * t * c + t * t * t * d
    };
    (mix(a.0, b.0, c.0, d.0), mix(a.1, b.1, c.1, d.1))
}

/// Rows of heads from below, each head with its place across.
struct Rows<'a> {
    all: Vec<Vec<(HeadId, f64)>>,
    /// Heads side by side at most.
    heads: usize,
    edges: &'a [Link],
}

/// Lowest and highest place of a head.
const ACROSS: (f64, f64) = (LEFT + HEAD.0 / 2.0 + 4.0, LANE - HEAD.0 / 2.0 - 20.0);

/// How much a head keeps to the place that its number gives it; the strongest edge pulls with about 1.
const HOME: f64 = 0.8;

/// How far every other row is moved, so that edges pass between heads.
const ASIDE: f64 = 24.0;

impl<'a> Rows<'a> {
    fn new(layers: &BTreeMap<usize, (Vec<HeadId>, bool)>, edges: &'a [Link]) -> Self {
        let all = || layers.values().flat_map(|(heads, _)| heads);
        let mut rows = Self {
            all: Vec::new(),
            heads: all().map(|head| head.head + 1).max().unwrap_or(1),
            edges,
        };
        for (heads, _) in layers.values() {
            let parts = heads.len().div_ceil(ABREAST).max(1);
            for row in heads.chunks(heads.len().div_ceil(parts).max(1)) {
                let placed = row.iter().map(|head| (*head, rows.home(*head)));
                rows.all.push(apart(placed.collect()));
            }
        }
        rows
    }

    /// By its number within the layer.
    fn home(&self, head: HeadId) -> f64 {
        let share = (head.head as f64 + 0.5) / self.heads as f64;
        ACROSS.0 + (ACROSS.1 - ACROSS.0) * share
    }

    fn across(&self) -> BTreeMap<HeadId, f64> {
        self.all.iter().flatten().copied().collect()
    }

    /// Moves each head towards those that it is joined to.
    fn sweep(&mut self) {
        let largest = self.edges.first().map_or(1.0, |link| link.weight.abs());
        for at in 0..self.all.len() {
            let across = self.across();
            let wished = |(head, _): &(HeadId, f64)| {
                let (mut sum, mut weight) = (HOME * self.home(*head), HOME);
                for link in self.edges {
                    let other = match (link.writer, link.reader) {
                        (Node::Head(from), Node::Head(to)) if from == *head => Some(to),
                        (Node::Head(from), Node::Head(to)) if to == *head => Some(from),
                        _ => None,
                    };
                    if let Some(x) = other.and_then(|other| across.get(&other)) {
                        let strength = link.weight.abs() / largest;
                        sum += strength * x;
                        weight += strength;
                    }
                }
                (*head, sum / weight)
            };
            self.all[at] = apart(self.all[at].iter().map(wished).collect());
        }
    }

    /// Stretches all rows over the whole width.
    fn stretch(&mut self) {
        let all = || self.all.iter().flatten().map(|(_, x)| *x);
        let (least, most) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
            (low.min(x), high.max(x))
        });
        if most - least < 1.0 {
            return;
        }
        let room = ACROSS.1 - ACROSS.0 - 2.0 * ASIDE;
        let factor = (room / (most - least)).clamp(1.0, 2.5);
        let (from, to) = (
            f64::midpoint(least, most),
            f64::midpoint(ACROSS.0, ACROSS.1),
        );
        for (at, row) in self.all.iter_mut().enumerate() {
            let aside = if at % 2 == 0 { ASIDE } else { -ASIDE };
            let moved = row
                .iter()
                .map(|(head, x)| (*head, to + (x - from) * factor + aside));
            *row = apart(moved.collect());
        }
    }

    fn finish(self, layers: &BTreeMap<usize, (Vec<HeadId>, bool)>) -> Layout {
        let mut heights = Vec::new();
        for (heads, mlp) in layers.values() {
            let rows = heads.len().div_ceil(ABREAST);
            heights.push(match (rows, mlp) {
                (0, _) => MLP_ROW,
                (rows, _) => ROW * rows as f64,
            });
        }
        let inner: f64 = heights.iter().sum();
        let height = TOP + 2.0 * BAR + inner + 40.0;
        let mut below = height - BAR - 18.0;
        let mut places = BTreeMap::new();
        let mut names = Vec::new();
        let middle = f64::midpoint(LANE, LEFT);
        let mut rows = self.all.into_iter();
        for ((layer, (heads, mlp)), layer_height) in layers.iter().zip(&heights) {
            let top = below - layer_height;
            names.push((*layer, f64::midpoint(below, top)));
            for part in 0..heads.len().div_ceil(ABREAST) {
                let y = below - ROW * (part as f64 + 0.5);
                for (head, x) in rows.next().unwrap_or_default() {
                    places.insert(Node::Head(head), (x, y));
                }
            }
            if *mlp {
                let up = if heads.is_empty() { 0.0 } else { 12.0 };
                let y = top + layer_height.min(ROW) / 2.0 - up;
                places.insert(Node::Mlp(*layer), (LANE + MLP.0 / 2.0 + 4.0, y));
            }
            below = top;
        }
        places.insert(Node::Input, (middle, height - BAR / 2.0 - 2.0));
        places.insert(Node::Logits, (middle, TOP + BAR / 2.0));
        Layout {
            places,
            layers: names,
            height,
        }
    }
}

/// Heads of a row as near to where they wish to be as they can without covering one another.
fn apart(mut row: Vec<(HeadId, f64)>) -> Vec<(HeadId, f64)> {
    row.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    let (low, high) = ACROSS;
    let step = APART.min((high - low) / (row.len() as f64 - 1.0).max(1.0));
    // Runs of heads that touch: their number and the mean place of the first.
    let mut runs: Vec<(f64, f64)> = Vec::new();
    for (at, (_, x)) in row.iter().enumerate() {
        let mut run = (1.0, x - step * at as f64);
        while let Some(before) = runs.pop() {
            if before.1 <= run.1 {
                runs.push(before);
                break;
            }
            let number = before.0 + run.0;
            run = (number, (before.0 * before.1 + run.0 * run.1) / number);
        }
        runs.push(run);
    }
    let most = high - step * (row.len() as f64 - 1.0).max(0.0);
    let places = runs.iter().flat_map(|(number, first)| {
        let first = first.min(most).max(low);
        core::iter::repeat_n(first, *number as usize)
    });
    for (at, (first, (_, x))) in places.zip(&mut row).enumerate() {
        *x = first + step * at as f64;
    }
    row
}
