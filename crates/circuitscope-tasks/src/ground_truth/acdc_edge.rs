use core::fmt;

use circuitscope_core::{Edge, HeadId, Node, Port};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An edge of ACDC's computation graph (Conmy et al. 2023, arXiv 2304.14997), which has nodes
/// inside an attention head as well: `q_input -> q -> result`, and the same for k and v.
///
/// Prints residual-stream edges as [`Edge`] does, and the inner steps as `a9.h6<q_input>->a9.h6<q>`
/// and `a9.h6<q>->a9.h6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AcdcEdge {
    /// From a writer of the residual stream to a reader: a choice that the model makes.
    Residual(Edge),
    /// From the input of a projection to its output (`hook_q <- hook_q_input`).
    PortInput(HeadId, Port),
    /// From a projection to the head's output (`hook_result <- hook_q`).
    HeadOutput(HeadId, Port),
}

impl AcdcEdge {
    /// The edge of the residual stream, if it is one.
    pub const fn residual(self) -> Option<Edge> {
        match self {
            Self::Residual(edge) => Some(edge),
            Self::PortInput(..) | Self::HeadOutput(..) => None,
        }
    }
}

impl fmt::Display for AcdcEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Residual(edge) => edge.fmt(f),
            Self::PortInput(HeadId { layer, head }, port) => {
                write!(
                    f,
                    "a{layer}.h{head}<{port}_input>->a{layer}.h{head}<{port}>"
                )
            }
            Self::HeadOutput(HeadId { layer, head }, port) => {
                write!(f, "a{layer}.h{head}<{port}>->a{layer}.h{head}")
            }
        }
    }
}

impl Serialize for AcdcEdge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AcdcEdge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| {
            de::Error::custom(format!(
                "{text:?} is no edge, expected one like a9.h6<q>->a9.h6"
            ))
        })
    }
}

/// What [`Display`](fmt::Display) writes.
fn parse(text: &str) -> Option<AcdcEdge> {
    if let Ok(edge) = text.parse() {
        return Some(AcdcEdge::Residual(edge));
    }
    let (from, to) = text.split_once("->")?;
    let (name, port) = from.strip_suffix('>')?.split_once('<')?;
    let Node::Head(head) = name.parse().ok()? else {
        return None;
    };
    let (port, edge): (&str, fn(HeadId, Port) -> AcdcEdge) = match port.strip_suffix("_input") {
        Some(port) => (port, AcdcEdge::PortInput),
        None => (port, AcdcEdge::HeadOutput),
    };
    let edge = edge(head, port.parse().ok()?);
    (edge.to_string().split_once("->")?.1 == to).then_some(edge)
}
