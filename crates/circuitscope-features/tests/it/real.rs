//! The real model: what a graph costs, and that its sums hold at that size.

use std::path::Path;
use std::time::Instant;

use circuitscope_core::{Exec, NoProgress};
use circuitscope_features::{AttributionGraph, Frozen, GraphSettings, PruneSettings, Transcoders};
use circuitscope_model::{LoadSettings, Processing, load_gguf};
use circuitscope_sae::{Affine, Encoder, SparseAutoencoder, TopK};

use crate::models::{B, device, normal};

/// Untrained transcoders in all layers, 32 of 1,152 features active at a time.
#[test]
#[ignore = "needs the real model: cargo xtask real-model"]
fn real_model_with_untrained_transcoders() {
    let file = "../../.models/smollm2-135m-instruct/model.gguf";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    assert!(
        file.exists(),
        "needs the real model, which is not here: cargo xtask real-model"
    );
    let settings = LoadSettings::from(Processing::Folded).with_exec(Exec::all_cores());
    let loaded = load_gguf::<B>(&file, settings, &device(), &NoProgress).unwrap();
    let text = "When Mary and John went to the store, John gave a drink to";
    let tokens = loaded.tokenizer().unwrap().encode(text, false).unwrap();
    let d = loaded.model.config().d_model;
    let coders: Vec<TopK<B>> = (0..loaded.model.config().n_layers as u64)
        .map(|layer| {
            let weights = SparseAutoencoder {
                w_enc: normal([d, 1152], 0.04, layer),
                w_dec: normal([1152, d], 0.04, layer + 100),
                b_enc: normal([1152], 0.0, layer),
                b_dec: normal([d], 0.0, layer),
            };
            TopK::new(Affine::new(weights).with_centring(false), 32).unwrap()
        })
        .collect();
    let coders: Transcoders<'_, B> = coders
        .iter()
        .enumerate()
        .map(|(layer, coder)| (layer, coder as &dyn Encoder<B>))
        .collect();
    let start = Instant::now();
    let frozen = Frozen::new(&loaded.model, &tokens, &device()).unwrap();
    println!(
        "{} tokens, frozen pass {:.1} s",
        tokens.len(),
        start.elapsed().as_secs_f64()
    );
    let start = Instant::now();
    let settings = GraphSettings::new().with_max_features(512);
    let graph = AttributionGraph::new(&frozen, &coders, &settings, &NoProgress).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let mut worst = 0.0f64;
    for target in graph.target_nodes() {
        let edges: Vec<f64> = graph.edges_into(target).unwrap().collect();
        let size: f64 = edges.iter().map(|edge| edge.abs()).sum();
        let off = (edges.iter().sum::<f64>() - graph.nodes()[target].value).abs() / size;
        worst = worst.max(off);
    }
    let pruned = graph.prune(&PruneSettings::default()).unwrap();
    println!(
        "{} active features, 512 nodes in {seconds:.1} s; sums off by at most {worst:.1e}; {} nodes and {} edges after pruning; {:?}",
        graph.active_features(),
        pruned.nodes.len(),
        pruned.edges.len(),
        graph.scores()
    );
    assert!(worst < 1e-5, "{worst}");
}
