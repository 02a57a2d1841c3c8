//! The hops of a prompt in somebody's trace: door, bridge and worker each put a span of their own in the place of the
//! parent that came, and log both, so that the logs of all give the tree.

use tidegate_schemas::TraceParent;

/// What goes on from here: the trace that came, with a span of ours as its parent. Without randomness it goes on as it
/// came, since two spans of one id would be worse than one too few.
pub(crate) fn hop(came: &TraceParent) -> TraceParent {
    getrandom::u64().map_or_else(|_| came.clone(), |span| came.of_span(span))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_hop_has_a_span_of_its_own() {
        let came: TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".parse().unwrap();
        let (one, two) = (hop(&came), hop(&came));
        assert!(one.trace_id() == came.trace_id() && two.trace_id() == came.trace_id());
        assert!(one != two && one != came, "{one} {two}");
    }
}
