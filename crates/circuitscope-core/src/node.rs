use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ParseError;
use crate::head::{HeadId, number};

/// A reading port of an attention head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// The query input.
    Q,
    /// The key input.
    K,
    /// The value input.
    V,
}

crate::names!(pub Port { Q => "q", K => "k", V => "v" } or "a port", "`q`, `k` or `v`");

/// A component of the computation graph, with the node names of EAP-IG:
/// `input`, `a{layer}.h{head}`, `m{layer}`, `logits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Node {
    /// Token plus position embedding.
    Input,
    /// An attention head.
    Head(HeadId),
    /// The MLP of a layer.
    Mlp(usize),
    /// The unembedding.
    Logits,
}

impl Node {
    /// Whether this node's output can reach `other` in a forward pass of a model whose blocks run
    /// attention, then MLP (a sequential residual stream).
    #[must_use]
    pub fn precedes(self, other: Self) -> bool {
        self.stage() < other.stage()
    }

    fn stage(self) -> usize {
        match self {
            Self::Input => 0,
            Self::Head(head) => 2 * head.layer + 1,
            Self::Mlp(layer) => 2 * layer + 2,
            Self::Logits => usize::MAX,
        }
    }
}

impl From<HeadId> for Node {
    fn from(head: HeadId) -> Self {
        Self::Head(head)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input => f.write_str("input"),
            Self::Head(head) => write!(f, "a{}.h{}", head.layer, head.head),
            Self::Mlp(layer) => write!(f, "m{layer}"),
            Self::Logits => f.write_str("logits"),
        }
    }
}

impl FromStr for Node {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let error = || ParseError::new("a node", s, "`input`, `a9.h6`, `m9` or `logits`");
        match s {
            "input" => Ok(Self::Input),
            "logits" => Ok(Self::Logits),
            _ if s.starts_with('a') => s.parse().ok().map(Self::Head).ok_or_else(error),
            _ => s
                .strip_prefix('m')
                .filter(|n| !n.is_empty())
                .and_then(number)
                .map(Self::Mlp)
                .ok_or_else(error),
        }
    }
}

/// A connection from a writer to a reader of the residual stream, named as in EAP-IG:
/// `a5.h5->a8.h6<k>`, `input->m0`, `a9.h9->logits`.
///
/// An edge into a head may leave its port open; it then means the pair of nodes, whatever the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// The writer.
    pub source: Node,
    /// The reader.
    pub destination: Node,
    /// The reading port; always `None` unless the destination is a head.
    pub port: Option<Port>,
}

impl Edge {
    /// An edge without a port.
    #[must_use]
    pub fn new(source: impl Into<Node>, destination: impl Into<Node>) -> Self {
        Self {
            source: source.into(),
            destination: destination.into(),
            port: None,
        }
    }

    /// An edge into port `port` of head `destination`.
    #[must_use]
    pub fn into_port(source: impl Into<Node>, destination: HeadId, port: Port) -> Self {
        Self {
            source: source.into(),
            destination: destination.into(),
            port: Some(port),
        }
    }

    /// Both ends, if both are heads.
    #[must_use]
    pub fn head_pair(self) -> Option<(HeadId, HeadId)> {
        match (self.source, self.destination) {
            (Node::Head(source), Node::Head(destination)) => Some((source, destination)),
            _ => None,
        }
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{}", self.source, self.destination)?;
        if let Some(port) = self.port {
            write!(f, "<{port}>")?;
        }
        Ok(())
    }
}

impl FromStr for Edge {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let error = || {
            ParseError::new(
                "an edge",
                s,
                "`a5.h5->a8.h6<k>`, `input->m0` or `m9->logits`",
            )
        };
        let (source, rest) = s.split_once("->").ok_or_else(error)?;
        let (destination, port) = match rest.strip_suffix('>') {
            Some(rest) => {
                let (destination, port) = rest.split_once('<').ok_or_else(error)?;
                (destination, Some(port.parse().ok().ok_or_else(error)?))
            }
            None => (rest, None),
        };
        let source: Node = source.parse().ok().ok_or_else(error)?;
        let destination: Node = destination.parse().ok().ok_or_else(error)?;
        let port_fits = port.is_none() || matches!(destination, Node::Head(_));
        if !port_fits || !source.precedes(destination) {
            return Err(ParseError::new(
                "an edge",
                s,
                "a writer before its reader, and a port only where the reader is a head",
            ));
        }
        Ok(Self {
            source,
            destination,
            port,
        })
    }
}

macro_rules! serde_as_string {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_string!(Port, Node, Edge);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rejects_impossible_edges() {
        for s in [
            "a1.h0->a1.h1",
            "a2.h0->a1.h1<q>",
            "m1->a1.h0<k>",
            "logits->m0",
            "input->m0<q>",
            "a0.h0->a1.h0<x>",
            "a0.h0",
        ] {
            assert!(s.parse::<Edge>().is_err(), "{s}");
        }
    }

    #[test]
    fn order_of_a_block_is_attention_then_mlp() {
        let head = Node::Head(HeadId::new(3, 0));
        assert!(head.precedes(Node::Mlp(3)) && !Node::Mlp(3).precedes(head));
        assert!(Node::Input.precedes(head) && Node::Mlp(3).precedes(Node::Logits));
    }

    fn node() -> impl Strategy<Value = Node> {
        prop_oneof![
            Just(Node::Input),
            Just(Node::Logits),
            (0usize..48).prop_map(Node::Mlp),
            (0usize..48, 0usize..25).prop_map(|(l, h)| Node::Head(HeadId::new(l, h))),
        ]
    }

    proptest! {
        #[test]
        fn nodes_parse_back(node in node()) {
            prop_assert_eq!(node.to_string().parse::<Node>().unwrap(), node);
        }

        #[test]
        fn edges_parse_back(source in node(), destination in node(), port in 0usize..4) {
            prop_assume!(source.precedes(destination));
            let port = matches!(destination, Node::Head(_)).then(|| Port::ALL.get(port).copied()).flatten();
            let edge = Edge { source, destination, port };
            prop_assert_eq!(edge.to_string().parse::<Edge>().unwrap(), edge);
        }
    }
}
