//! The strongest edges of a method as a graph: layers from bottom to top, heads side by side.

use circuitscope_core::{HeadGrid, Node, Port};
use circuitscope_measures::{GraphScores, directed_pairs};
use maud::{Markup, html};

use crate::svg::Anchor::{Middle, Start};
use crate::svg::{
    Colour, Drawing, GRID, INK, MARK, MUTED, ON_HEAT, Pen, Point, disc, dot, hinted, hinted_line,
    line, line_colour, ring, slug, text,
};
use crate::{MethodReport, TaskReport, number};

/// Edges drawn, of those with the largest scores of either sign.
const EDGES: usize = 40;

const ROW: f64 = 46.0;
const COLUMN: f64 = 56.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 44.0;
const RADIUS: f64 = 13.0;
/// Right of the graph, for what colours and marks mean.
const LEGEND: f64 = 200.0;

/// What an edge enters, or that it works against the behaviour: a colour each, and what it means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Q,
    K,
    V,
    Other,
    Heads,
    Negative,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Q,
        Self::K,
        Self::V,
        Self::Other,
        Self::Heads,
        Self::Negative,
    ];

    const fn colour(self) -> Colour {
        line_colour(match self {
            Self::Q => 4,
            Self::K => 3,
            Self::V | Self::Heads => 0,
            Self::Other => 5,
            Self::Negative => 2,
        })
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::Q => "into q",
            Self::K => "into k",
            Self::V => "into v",
            Self::Other => "into an MLP or the logits",
            Self::Heads => "from head to head",
            Self::Negative => "against the behaviour",
        }
    }
}

/// An edge as it is drawn.
struct Drawn {
    from: Node,
    to: Node,
    port: Option<Port>,
    score: f64,
    /// Its name, or those of all that share it.
    name: String,
    kind: Kind,
}

/// `None` without scores of edges.
pub(super) fn draw(task: &TaskReport, method: &MethodReport) -> Option<Drawing> {
    let (edges, mlps, kinds) = match (&method.graph, &method.pairs) {
        (Some(scores), _) if scores.edges.is_some() => {
            let kinds = |kind: &Kind| *kind != Kind::Heads;
            (
                of_graph(scores),
                scores.graph.mlps,
                Kind::ALL.into_iter().filter(kinds).collect(),
            )
        }
        (_, Some(pairs)) => (of_pairs(task.grid, pairs), false, vec![Kind::Heads]),
        _ => return None,
    };
    let edges = strongest(edges);
    let largest = edges.first()?.score.abs();
    let grid = task.grid;
    let columns = (grid.n_heads + usize::from(mlps)) as f64;
    let ends = !kinds.contains(&Kind::Heads);
    let plan = Plan {
        grid,
        middle: LEFT + columns * COLUMN / 2.0,
    };
    let height = TOP + plan.rows() * ROW + 10.0;
    let shapes = html! {
        (text(
            &format!("{} · {} · strongest edges", task.task, method.method),
            (LEFT, 16.0), 11.3, INK, Start,
        ))
        // The strongest last, on top.
        @for edge in edges.iter().rev() { (drawn(edge, largest, &plan)) }
        @for node in nodes(grid, mlps, ends) {
            @let used = edges.iter().any(|edge| edge.from == node || edge.to == node);
            (drawn_node(task, node, used, plan.place(node)))
        }
        (legend(task, &kinds, LEFT + columns * COLUMN + 16.0))
    };
    let marks = match (&task.truth, task.chosen.is_empty()) {
        (None, _) => String::new(),
        (Some(_), true) => format!("; outlined: {}", task.marked),
        (Some(_), false) => format!("; outlined: {}; with a dot: chosen", task.marked),
    };
    Some(Drawing {
        file_name: format!("circuit-{}-{}.svg", slug(&task.task), slug(&method.method)),
        description: format!(
            "The {} strongest edges of method {} on task {}{marks}",
            edges.len(),
            method.method,
            task.task
        ),
        role: "img",
        size: (LEFT + columns * COLUMN + LEGEND, height),
        shapes,
    })
}

/// Where nodes are: the input below, two rows for each layer, the logits above.
struct Plan {
    grid: HeadGrid,
    middle: f64,
}

impl Plan {
    const fn rows(&self) -> f64 {
        2.0 * self.grid.n_layers as f64 + 2.0
    }

    fn place(&self, node: Node) -> Point {
        let up = |row: f64| TOP + (self.rows() - 1.0 - row) * ROW;
        let column = |at: usize| LEFT + at as f64 * COLUMN + COLUMN / 2.0;
        match node {
            Node::Input => (self.middle, up(0.0)),
            Node::Head(head) => (column(head.head), up(2.0 * head.layer as f64 + 1.0)),
            Node::Mlp(layer) => (column(self.grid.n_heads), up(2.0 * layer as f64 + 2.0)),
            Node::Logits => (self.middle, up(self.rows() - 1.0)),
        }
    }
}

/// All nodes of a graph; `ends` are the input and the logits.
fn nodes(grid: HeadGrid, mlps: bool, ends: bool) -> Vec<Node> {
    let mlps = (0..grid.n_layers).filter(|_| mlps).map(Node::Mlp);
    let ends = [Node::Input, Node::Logits].into_iter().filter(|_| ends);
    grid.heads()
        .map(Node::Head)
        .chain(mlps)
        .chain(ends)
        .collect()
}

fn drawn(edge: &Drawn, largest: f64, plan: &Plan) -> Markup {
    // Ports enter side by side.
    let shift = match edge.port {
        Some(Port::Q) => -7.0,
        Some(Port::V) => 7.0,
        _ => 0.0,
    };
    let (from, to) = (plan.place(edge.from), plan.place(edge.to));
    let ends = [(from.0, from.1 - RADIUS), (to.0 + shift, to.1 + RADIUS)];
    let width = 0.75 + 4.25 * edge.score.abs() / largest;
    let hint = format!("{}: {}", edge.name, number(edge.score));
    hinted_line(&hint, &ends, Pen::new(edge.kind.colour(), width), 6.0)
}

fn drawn_node(task: &TaskReport, node: Node, used: bool, centre: Point) -> Markup {
    let (words, hint, marked, chosen) = match node {
        Node::Head(head) => (
            format!("{}.{}", head.layer, head.head),
            format!("{head}{}", task.marks_of(head)),
            task.is_marked(head),
            task.chosen.contains(&head),
        ),
        Node::Mlp(_) => (node.to_string(), node.to_string(), false, false),
        Node::Input => ("in".to_owned(), node.to_string(), false, false),
        Node::Logits => ("out".to_owned(), node.to_string(), false, false),
    };
    let pen = if marked {
        Pen::new(MARK, 3.0)
    } else {
        Pen::new(GRID, 1.25)
    };
    hinted(
        &hint,
        &html! {
            (disc(centre, RADIUS, ON_HEAT))
            (ring(centre, RADIUS, pen))
            (text(&words, centre, 8.1, if used { INK } else { MUTED }, Middle))
            @if chosen { (dot((centre.0 + 9.0, centre.1 - 9.0), 4.5)) }
        },
    )
}

/// What colours and marks mean.
fn legend(task: &TaskReport, kinds: &[Kind], x: f64) -> Markup {
    let place = |row: usize| TOP + 6.0 + 20.0 * row as f64;
    let beside = |words: &str, row: usize| text(words, (x + 24.0, place(row)), 8.9, MUTED, Start);
    html! {
        @for (row, kind) in kinds.iter().enumerate() {
            @let y = place(row);
            (line(&[(x, y), (x + 18.0, y)], Pen::new(kind.colour(), 2.5)))
            (beside(kind.meaning(), row))
        }
        @if task.truth.is_some() {
            @let y = place(kinds.len());
            (ring((x + 9.0, y), 6.0, Pen::new(MARK, 2.0)))
            (beside(&task.marked, kinds.len()))
        }
        @if !task.chosen.is_empty() {
            (dot((x + 9.0, place(kinds.len() + 1)), 4.5))
            (beside("chosen", kinds.len() + 1))
        }
    }
}

fn of_graph(scores: &GraphScores) -> Vec<Drawn> {
    let graph = scores.graph;
    let edges = graph.edges().filter_map(|(writer, reader)| {
        let score = scores.edge(writer, reader)?;
        let (to, port) = graph.reader(reader);
        let kind = match (score < 0.0, port) {
            (true, _) => Kind::Negative,
            (_, Some(Port::Q)) => Kind::Q,
            (_, Some(Port::K)) => Kind::K,
            (_, Some(Port::V)) => Kind::V,
            (_, None) => Kind::Other,
        };
        let names = graph.edges_between(writer, reader);
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        Some(Drawn {
            from: graph.writer(writer),
            to,
            port,
            score,
            name: names.join(", "),
            kind,
        })
    });
    edges.collect()
}

/// `pairs`: `[heads, heads]`, writer by reader.
fn of_pairs(grid: HeadGrid, pairs: &[f64]) -> Vec<Drawn> {
    let edges = directed_pairs(grid).filter_map(|(writer, reader)| {
        let (from, to) = (grid.head(writer), grid.head(reader));
        Some(Drawn {
            from: Node::Head(from),
            to: Node::Head(to),
            port: None,
            score: *pairs.get(writer * grid.len() + reader)?,
            name: format!("{from} → {to}"),
            kind: Kind::Heads,
        })
    });
    edges.collect()
}

/// Those with the largest scores of either sign, from large to small.
fn strongest(mut edges: Vec<Drawn>) -> Vec<Drawn> {
    edges.retain(|edge| edge.score != 0.0);
    // The sort is stable: of equal ones the first.
    edges.sort_by(|a, b| b.score.abs().total_cmp(&a.score.abs()));
    edges.truncate(EDGES);
    edges
}
