//! The strongest edges of a method as a graph: layers from bottom to top, heads side by side.

use circuitscope_core::{HeadId, Node, Port};
use circuitscope_measures::GraphScores;
use plotters::prelude::*;

use crate::svg::{
    Drawing, GRID, HPos, Hint, INK, MUTED, ON_HEAT, UNIT, VPos, drawing, line_colour, slug, text,
};
use crate::{MethodReport, Result, TaskReport, number};

/// Edges drawn, of those with the largest scores of either sign.
const EDGES: usize = 40;

const ROW: i32 = 46;
const COLUMN: i32 = 56;
const LEFT: i32 = 70;
const TOP: i32 = 44;
const RADIUS: i32 = 13;

/// Colours of ports, as indices of the colours of lines: q purple, k green, v blue, others grey.
const Q: usize = 4;
const K: usize = 3;
const V: usize = 0;
const OTHER: usize = 5;
/// An edge that works against the behaviour.
const NEGATIVE: usize = 2;

/// `None` without scores of edges.
pub(super) fn draw(task: &TaskReport, method: &MethodReport) -> Result<Option<Drawing>> {
    let Some(scores) = method
        .graph
        .as_ref()
        .filter(|scores| scores.edges.is_some())
    else {
        return Ok(None);
    };
    let edges = strongest(scores);
    let Some(largest) = edges.first().map(|edge| edge.2.abs()).filter(|x| *x > 0.0) else {
        return Ok(None);
    };
    let graph = scores.graph;
    let columns = graph.n_heads as i32 + i32::from(graph.mlps);
    // Input below, two rows for each layer, logits above.
    let rows = 2 * graph.n_layers as i32 + 2;
    let width = LEFT + columns * COLUMN + 200;
    let height = TOP + rows * ROW + 10;
    let place = |node: Node| -> (i32, i32) {
        let up = |row: i32| TOP + (rows - 1 - row) * ROW;
        let middle = LEFT + columns * COLUMN / 2;
        match node {
            Node::Input => (middle, up(0)),
            Node::Head(head) => (
                LEFT + head.head as i32 * COLUMN + COLUMN / 2,
                up(2 * head.layer as i32 + 1),
            ),
            Node::Mlp(layer) => (
                LEFT + graph.n_heads as i32 * COLUMN + COLUMN / 2,
                up(2 * layer as i32 + 2),
            ),
            Node::Logits => (middle, up(rows - 1)),
        }
    };
    let marked = |head: HeadId| {
        task.truth
            .as_ref()
            .is_some_and(|truth| truth.contains(&head))
    };
    let description = format!(
        "The {} strongest edges of method {} on task {}",
        edges.len(),
        method.method,
        task.task
    );
    let file_name = format!("circuit-{}-{}.svg", slug(&task.task), slug(&method.method));
    let size = (width as u32, height as u32);
    let drawn = drawing(file_name, &description, size, |area| {
        let at = |(x, y): (i32, i32)| (x * UNIT, y * UNIT);
        let write = |words: &str, size, colour, h, point| {
            let style = text(size, colour, h, VPos::Center);
            area.draw(&Text::new(words.to_owned(), at(point), style))
        };
        let title = format!("{} · {} · strongest edges", task.task, method.method);
        write(&title, 14, INK, HPos::Left, (LEFT, 16))?;
        let mut hints = Vec::new();
        // The strongest last, on top.
        for &(writer, reader, score) in edges.iter().rev() {
            let source = graph.writer(writer);
            let (node, port) = graph.reader(reader);
            let colour = match (score < 0.0, port) {
                (true, _) => NEGATIVE,
                (_, Some(Port::Q)) => Q,
                (_, Some(Port::K)) => K,
                (_, Some(Port::V)) => V,
                _ => OTHER,
            };
            let pen = (6.0 + 34.0 * score.abs() / largest) as u32;
            let (from, to) = (place(source), place(node));
            // Ports enter side by side.
            let shift = match port {
                Some(Port::Q) => -7,
                Some(Port::V) => 7,
                _ => 0,
            };
            let from = (from.0, from.1 - RADIUS);
            let to = (to.0 + shift, to.1 + RADIUS);
            let line = vec![at(from), at(to)];
            area.draw(&PathElement::new(
                line,
                line_colour(colour).stroke_width(pen),
            ))?;
            let names: Vec<String> = graph
                .edges_between(writer, reader)
                .iter()
                .map(ToString::to_string)
                .collect();
            hints.push(Hint {
                shape: format!(
                    "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"#000\" stroke-opacity=\"0\" stroke-width=\"{}\"",
                    from.0 * UNIT,
                    from.1 * UNIT,
                    to.0 * UNIT,
                    to.1 * UNIT,
                    6 * UNIT
                ),
                text: format!("{}: {}", names.join(", "), number(score)),
            });
        }
        let used = |node: Node| {
            edges
                .iter()
                .any(|&(w, r, _)| graph.writer(w) == node || graph.reader(r).0 == node)
        };
        let mut nodes: Vec<Node> = (0..graph.writers()).map(|at| graph.writer(at)).collect();
        nodes.push(Node::Logits);
        for node in nodes {
            let (x, y) = place(node);
            let (words, is_marked) = match node {
                Node::Input => ("in".to_owned(), false),
                Node::Head(head) => (format!("{}.{}", head.layer, head.head), marked(head)),
                Node::Mlp(layer) => (format!("m{layer}"), false),
                Node::Logits => ("out".to_owned(), false),
            };
            let ring = if is_marked { crate::svg::MARK } else { GRID };
            area.draw(&Circle::new(at((x, y)), RADIUS * UNIT, ON_HEAT.filled()))?;
            let pen = if is_marked { 24 } else { 10 };
            area.draw(&Circle::new(
                at((x, y)),
                RADIUS * UNIT,
                ring.stroke_width(pen),
            ))?;
            let colour = if used(node) { INK } else { MUTED };
            write(&words, 10, colour, HPos::Center, (x, y))?;
            hints.push(Hint {
                shape: format!(
                    "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"#000\" fill-opacity=\"0\"",
                    x * UNIT,
                    y * UNIT,
                    RADIUS * UNIT
                ),
                text: match node {
                    Node::Head(head) if is_marked => format!("{head}, {}", task.marked),
                    Node::Head(head) => head.to_string(),
                    other => other.to_string(),
                },
            });
        }
        let legend = [
            (Q, "into q"),
            (K, "into k"),
            (V, "into v"),
            (OTHER, "into an MLP or the logits"),
            (NEGATIVE, "against the behaviour"),
        ];
        let x = LEFT + columns * COLUMN + 16;
        for (line, (colour, words)) in (0i32..).zip(legend) {
            let y = TOP + 6 + 20 * line;
            let pen = line_colour(colour).stroke_width(20);
            area.draw(&PathElement::new(vec![at((x, y)), at((x + 18, y))], pen))?;
            write(words, 11, MUTED, HPos::Left, (x + 24, y))?;
        }
        Ok(hints)
    })?;
    Ok(Some(drawn))
}

/// (writer, reader, score) of the largest scores of either sign, from large to small.
fn strongest(scores: &GraphScores) -> Vec<(usize, usize, f64)> {
    let mut edges: Vec<(usize, usize, f64)> = scores
        .graph
        .edges()
        .filter_map(|(writer, reader)| Some((writer, reader, scores.edge(writer, reader)?)))
        .filter(|edge| edge.2 != 0.0)
        .collect();
    edges.sort_by(|a, b| {
        b.2.abs()
            .total_cmp(&a.2.abs())
            .then((a.0, a.1).cmp(&(b.0, b.1)))
    });
    edges.truncate(EDGES);
    edges
}
