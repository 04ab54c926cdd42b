//! A graph as text, Mermaid or DOT.

use super::{BASE, Graph, Node};

/// One line for each stage: name, kind, where its inputs come from, and its variants if
/// there are several.
pub fn text(graph: &Graph) -> String {
    let widest = |f: fn(&Node) -> usize| graph.nodes.iter().map(f).max().unwrap_or(0);
    let names = widest(|n| n.name.chars().count());
    let kinds = widest(|n| n.kind().name().len());
    let all = variants(graph);
    let mut text = String::new();
    for node in &graph.nodes {
        let needs: Vec<String> = node
            .needs
            .iter()
            .map(|(slot, need)| {
                let from = &graph.nodes[need.from];
                if *slot == need.output {
                    format!("{}.{slot}", from.name)
                } else {
                    format!("{slot}: {}.{}", from.name, need.output)
                }
            })
            .collect();
        let needs = if needs.is_empty() {
            String::new()
        } else {
            format!("<- {}", needs.join(", "))
        };
        let of = if all > 1 && node.variants.len() < all {
            format!("  [{}]", node.variants.join(", "))
        } else {
            String::new()
        };
        let line = format!(
            "{:<names$}  {:<kinds$}  {needs}{of}",
            node.name,
            node.kind().name()
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// For GitHub, documentation tools and editors.
pub fn mermaid(graph: &Graph) -> String {
    let mut text = String::from("flowchart TD\n");
    for (index, node) in graph.nodes.iter().enumerate() {
        let label = label(node, "<br/>").replace('"', "#quot;");
        text.push_str(&format!("  n{index}[\"{label}\"]\n"));
    }
    for (from, to, name) in edges(graph) {
        text.push_str(&format!("  n{from} -->|{name}| n{to}\n"));
    }
    text
}

/// For Graphviz.
pub fn dot(graph: &Graph) -> String {
    let mut text = String::from("digraph pipeline {\n  node [shape=box];\n");
    for (index, node) in graph.nodes.iter().enumerate() {
        let label = label(node, "\\n").replace('"', "\\\"");
        text.push_str(&format!("  n{index} [label=\"{label}\"];\n"));
    }
    for (from, to, name) in edges(graph) {
        text.push_str(&format!("  n{from} -> n{to} [label=\"{name}\"];\n"));
    }
    text.push_str("}\n");
    text
}

/// Name, and the kind where it differs.
fn label(node: &Node, newline: &str) -> String {
    if node.name == node.kind().name() {
        node.name.clone()
    } else {
        format!("{}{newline}{}", node.name, node.kind().name())
    }
}

fn edges(graph: &Graph) -> impl Iterator<Item = (usize, usize, &str)> {
    graph.nodes.iter().enumerate().flat_map(|(to, node)| {
        let needs = node.needs.values();
        needs.map(move |need| (need.from, to, need.output.as_str()))
    })
}

fn variants(graph: &Graph) -> usize {
    let mut names: Vec<&str> = graph
        .nodes
        .iter()
        .flat_map(|n| n.variants.iter().map(String::as_str))
        .collect();
    names.push(BASE);
    names.sort_unstable();
    names.dedup();
    names.len()
}
