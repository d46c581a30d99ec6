//! The circuit as a graph: the input below, layers upwards, the logits on top.

use circuitscope_core::{HeadId, Node, Port};
use circuitscope_measures::cards::Link;
use maud::{Markup, html};

use crate::number;
use crate::svg::Anchor::{End, Middle, Start};
use crate::svg::{
    ABOVE, BELOW, Colour, Drawing, GRID, INK, MARK, MUTED, Pen, Point, boxed, line, path, polygon,
    px, slug, text,
};

use super::edges::{Edges, hint, name};
use super::layout::{BAR, Curve, HEAD, Layout, MLP, WIDTH};
use super::roles::{Roles, glyph};
use super::{CircuitPage, card_id};

const DASHES: Option<&str> = Some("5 3.5");
const LEGEND_ROW: f64 = 20.0;

/// The graph of a page.
pub(super) struct Graph<'a> {
    page: &'a CircuitPage<'a>,
    roles: &'a Roles<'a>,
    pub(super) edges: Edges,
    heads: Vec<HeadId>,
    layout: Layout,
}

impl<'a> Graph<'a> {
    /// `None` where there is nothing to draw.
    pub(super) fn of(page: &'a CircuitPage<'a>, roles: &'a Roles<'a>) -> Option<Self> {
        let heads = page.chosen();
        let edges = Edges::of(page);
        if heads.is_empty() && edges.drawn.is_empty() {
            return None;
        }
        let layout = Layout::of(&heads, &edges.drawn);
        Some(Self {
            page,
            roles,
            edges,
            heads,
            layout,
        })
    }

    /// `linked`: heads lead to their cards.
    pub(super) fn draw(&self, linked: bool) -> Drawing {
        let largest = self.edges.largest();
        let legend = self.legend();
        let top = self.layout.height + 14.0;
        let (items, height) = flow(&legend, top);
        let shapes = html! {
            @for (layer, y) in &self.layout.layers {
                (line(&[(34.0, *y), (WIDTH, *y)], Pen::new(GRID, 0.75)))
                (text(&format!("L{layer}"), (28.0, *y), 11.0, MUTED, End))
            }
            // The strongest last, on top.
            @for link in self.edges.drawn.iter().rev() { (self.edge(link, largest)) }
            @for (node, place) in self.layout.nodes() { (self.node(node, place, linked)) }
            @for (item, (x, y)) in legend.iter().zip(&items) { (item.draw((*x, *y))) }
        };
        Drawing {
            file_name: format!("graph-{}.svg", slug(&self.page.task.task)),
            description: format!(
                "The circuit on {} as a graph: {} heads by layer, the {} strongest of {} edges between them; all numbers \
                 are in the cards of heads",
                self.page.task.task,
                self.heads.len(),
                self.edges.drawn.len(),
                self.edges.all
            ),
            role: if linked { "group" } else { "img" },
            size: (WIDTH, height),
            shapes,
        }
    }

    fn edge(&self, link: &Link, largest: f64) -> Markup {
        let Some(curve) = self.layout.curve(link) else {
            return html! {};
        };
        let width = 0.9 + 4.6 * link.weight.abs() / largest;
        let d = written(&curve);
        let ends = format!("{} {}", key(link.writer), key(link.reader));
        let colour = sign(link.weight);
        html! {
            g.edge data-ends=(ends) {
                title { (hint(link, self.edges.linear)) }
                (path(&d, Pen::new(colour, width).dashed(DASHES.filter(|_| !link.agrees))))
                (tip(&curve, link.weight < 0.0, width, colour))
                path d=(d) fill="none" stroke-width=(px(width.max(8.0))) pointer-events="stroke" {}
                "\n"
            }
            "\n"
        }
    }

    fn node(&self, node: Node, place: Point, linked: bool) -> Markup {
        match node {
            Node::Head(head) => self.head(head, place, linked),
            Node::Mlp(_) => {
                let corner = (place.0 - MLP.0 / 2.0, place.1 - MLP.1 / 2.0);
                html! {
                    g.node data-node=(key(node)) {
                        (boxed(corner, MLP, 2.0, Pen::new(MUTED, 1.0)))
                        (text(&name(node), place, 10.5, INK, Middle))
                    }
                    "\n"
                }
            }
            Node::Input | Node::Logits => html! {
                g.node data-node=(key(node)) {
                    (boxed((44.0, place.1 - BAR / 2.0), (WIDTH - 46.0, BAR), 4.0, Pen::new(MUTED, 1.0)))
                    (text(&name(node), place, 11.0, INK, Middle))
                }
                "\n"
            },
        }
    }

    fn head(&self, head: HeadId, (x, y): Point, linked: bool) -> Markup {
        let chosen = self.heads.contains(&head);
        let roles = self.roles.of_head(head);
        let (left, top) = (x - HEAD.0 / 2.0, y - HEAD.1 / 2.0);
        let pen = match (chosen, self.page.known(head)) {
            (true, true) => Pen::new(MARK, 2.5),
            (true, false) => Pen::new(INK, 1.5),
            (false, true) => Pen::new(MARK, 1.5).dashed(Some("3 2.5")),
            (false, false) => Pen::new(MUTED, 1.0).dashed(Some("3 2.5")),
        };
        let colour = if chosen { INK } else { MUTED };
        let into = |port: Port| {
            let into = |link: &&Link| link.reader == Node::Head(head) && link.port == Some(port);
            self.edges.drawn.iter().any(|link| into(&link))
        };
        let ports = [(Port::Q, -20.0), (Port::K, 0.0), (Port::V, 20.0)];
        // Above its ports, where any are named.
        let middle = if ports.iter().any(|(port, _)| into(*port)) {
            y - 7.0
        } else {
            y
        };
        let shapes = html! {
            (boxed((left, top), HEAD, 6.0, pen))
            @for (at, role) in roles.iter().take(2).enumerate() {
                (glyph(*role, (x + [-27.0, 27.0][at], middle)))
            }
            (text(&head.to_string(), (x, middle), 11.0, colour, Middle))
            @for (port, shift) in ports.into_iter().filter(|(port, _)| into(*port)) {
                (text(port.name(), (x + shift, y + 8.5), 10.0, INK, Middle))
            }
        };
        let said = self.said(head, chosen);
        // What is named begins with what is seen.
        let seen = ports.iter().filter(|(port, _)| into(*port));
        let seen: Vec<&str> = seen.map(|(port, _)| port.name()).collect();
        let spoken = said.replacen(&head.to_string(), &format!("{head} {}", seen.join(" ")), 1);
        html! {
            @if linked && chosen {
                a.node href={ "#" (card_id(head)) } data-node=(key(head.into())) aria-label=(spoken) {
                    title { (said) } (shapes)
                }
            } @else {
                g.node data-node=(key(head.into())) { title { (said) } (shapes) }
            }
            "\n"
        }
    }

    /// What is said of a head where the pointer is.
    fn said(&self, head: HeadId, chosen: bool) -> String {
        let known = self.page.known(head);
        let parts = [
            Some(head.to_string()),
            (!chosen).then(|| "not chosen".to_owned()),
            self.page
                .score(head)
                .map(|x| format!("score {}", number(x))),
            self.page
                .effect(head)
                .map(|x| format!("effect {}", number(x))),
            known.then(|| self.page.task.marked.clone()),
        ];
        let parts = parts.into_iter().flatten().chain(self.roles.words(head));
        parts.collect::<Vec<_>>().join(", ")
    }

    fn legend(&self) -> Vec<Item> {
        let mut items = Vec::new();
        let drawn = &self.edges.drawn;
        if drawn.iter().any(|link| link.weight > 0.0) {
            items.push(Item::new("above 0: for the behaviour", Sign::Edge(1.0)));
        }
        if drawn.iter().any(|link| link.weight < 0.0) {
            items.push(Item::new("below 0: against it", Sign::Edge(-1.0)));
        }
        if drawn.iter().any(|link| !link.agrees) {
            items.push(Item::new(
                "dashed: two gradients disagree in sign",
                Sign::Dashed,
            ));
        }
        if !drawn.is_empty() {
            let widest = format!("widest: {}", number(self.edges.largest()));
            items.push(Item::new(&widest, Sign::Widest));
        }
        if drawn.iter().any(|link| link.port.is_some()) {
            items.push(Item::new("q, k, v: where a head reads", Sign::None));
        }
        let nodes: Vec<HeadId> = self
            .layout
            .nodes()
            .filter_map(|(node, _)| match node {
                Node::Head(head) => Some(head),
                _ => None,
            })
            .collect();
        items.push(Item::new("chosen", Sign::Box(Pen::new(INK, 1.5))));
        if nodes.iter().any(|head| !self.heads.contains(head)) {
            let pen = Pen::new(MUTED, 1.0).dashed(Some("3 2.5"));
            items.push(Item::new("not chosen", Sign::Box(pen)));
        }
        if nodes.iter().any(|head| self.page.known(*head)) {
            let marked = &self.page.task.marked;
            items.push(Item::new(marked, Sign::Box(Pen::new(MARK, 2.5))));
        }
        let roles = self.roles.named();
        items.extend(roles.map(|(at, words)| Item::new(&words, Sign::Role(at))));
        items
    }
}

/// Which nodes a script lights up together.
fn key(node: Node) -> String {
    node.to_string()
}

const fn sign(weight: f64) -> Colour {
    if weight < 0.0 { BELOW } else { ABOVE }
}

fn written([a, b, c, d]: &Curve) -> String {
    let at = |point: &Point| format!("{},{}", px(point.0), px(point.1));
    format!("M{} C{} {} {}", at(a), at(b), at(c), at(d))
}

/// The end of an edge: an arrow, or a bar where it works against the behaviour.
fn tip([_, _, bend, end]: &Curve, against: bool, width: f64, colour: Colour) -> Markup {
    let (dx, dy) = (end.0 - bend.0, end.1 - bend.1);
    let length = dx.hypot(dy).max(1e-6);
    let (dx, dy) = (dx / length, dy / length);
    // Along the edge and across it.
    let at = |along: f64, across: f64| {
        (
            end.0 + dx * along - dy * across,
            end.1 + dy * along + dx * across,
        )
    };
    let half = 3.0 + 0.7 * width;
    if against {
        line(
            &[at(0.0, -half - 1.0), at(0.0, half + 1.0)],
            Pen::new(colour, 2.5),
        )
    } else {
        polygon(
            &[at(0.0, 0.0), at(-1.9 * half, -half), at(-1.9 * half, half)],
            colour,
        )
    }
}

/// What stands for something in the legend.
enum Sign {
    Edge(f64),
    Dashed,
    Widest,
    Box(Pen),
    Role(usize),
    None,
}

/// An entry of the legend.
struct Item {
    words: String,
    sign: Sign,
}

impl Item {
    fn new(words: &str, sign: Sign) -> Self {
        Self {
            words: words.to_owned(),
            sign,
        }
    }

    const fn sign_width(&self) -> f64 {
        match self.sign {
            Sign::Edge(_) | Sign::Dashed | Sign::Widest => 30.0,
            Sign::Box(_) => 22.0,
            Sign::Role(_) => 15.0,
            Sign::None => 0.0,
        }
    }

    fn width(&self) -> f64 {
        self.sign_width() + 6.0 * self.words.chars().count() as f64 + 16.0
    }

    fn draw(&self, (x, y): Point) -> Markup {
        let along = |pen: Pen| line(&[(x, y), (x + 24.0, y)], pen);
        let end = [(x, y), (x, y), (x + 8.0, y), (x + 24.0, y)];
        html! {
            @match &self.sign {
                Sign::Edge(weight) => {
                    (along(Pen::new(sign(*weight), 2.0)))
                    (tip(&end, *weight < 0.0, 2.0, sign(*weight)))
                }
                Sign::Dashed => (along(Pen::new(INK, 2.0).dashed(DASHES))),
                Sign::Widest => (along(Pen::new(MUTED, 5.5))),
                Sign::Box(pen) => (boxed((x, y - 6.0), (17.0, 12.0), 3.0, *pen)),
                Sign::Role(at) => (glyph(*at, (x + 6.0, y))),
                Sign::None => {}
            }
            (text(&self.words, (x + self.sign_width(), y), 11.0, INK, Start))
        }
    }
}

/// Places of entries, row after row, and where the last row ends.
fn flow(items: &[Item], top: f64) -> (Vec<Point>, f64) {
    let (mut x, mut y) = (44.0, top);
    let mut places = Vec::new();
    for item in items {
        if x > 44.0 && x + item.width() > WIDTH {
            (x, y) = (44.0, y + LEGEND_ROW);
        }
        places.push((x, y));
        x += item.width();
    }
    (places, y + LEGEND_ROW)
}
