//! The shapes of four small language models that are in wide use, and the types that llama.cpp's own `llama-quantize`
//! gives their tensors: what a file of them weighs and how fast it runs follows from these, not from the values.

use crate::engine::blocks::Kind;
use crate::engine::gguf::{self, Fill, Tensor};
use crate::engine::vocabulary::{Family, Vocabulary};
use std::path::Path;

/// A model whose sizes are known.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) enum Shape {
    /// SmolLM2 135M: 30 layers of 576.
    #[value(name = "smollm2-135m")]
    SmolLm2Of135M,
    /// Qwen2.5 0.5B: 24 layers of 896, a vocabulary of 151,936.
    #[value(name = "qwen2.5-0.5b")]
    Qwen25Of05B,
    /// Llama 3.2 1B: 16 layers of 2,048.
    #[value(name = "llama3.2-1b")]
    Llama32Of1B,
    /// Qwen2.5 1.5B: 28 layers of 1,536.
    #[value(name = "qwen2.5-1.5b")]
    Qwen25Of15B,
}

/// How the weights are stored.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) enum Quant {
    /// 4 bits and a scale for 32 of them.
    #[value(name = "q4_0")]
    Q4_0,
    /// 4 bits with scales of scales; 6 bits where they matter most.
    #[value(name = "q4_k_m")]
    Q4KM,
    /// 8 bits and a scale for 32 of them.
    #[value(name = "q8_0")]
    Q8_0,
}

/// The name that the option takes.
pub(crate) fn name_of(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
}

/// What a shape consists of, after the `config.json` of its makers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// `general.architecture`.
    pub(crate) architecture: &'static str,
    pub(crate) layers: u32,
    pub(crate) width: u32,
    pub(crate) forward: u32,
    pub(crate) heads: u32,
    pub(crate) kv_heads: u32,
    pub(crate) head_width: u32,
    pub(crate) context_length: u32,
    pub(crate) rope_base: f32,
    pub(crate) norm_epsilon: f32,
    /// Tokens, unused ones at the end of it included.
    pub(crate) vocabulary: u32,
    family: Family,
}

impl Shape {
    /// All of them, the smallest first.
    pub(crate) const ALL: [Self; 4] = [Self::SmolLm2Of135M, Self::Qwen25Of05B, Self::Llama32Of1B, Self::Qwen25Of15B];

    pub(crate) fn sizes(self) -> Sizes {
        let qwen = Sizes {
            architecture: "qwen2",
            layers: 24,
            width: 896,
            forward: 4_864,
            heads: 14,
            kv_heads: 2,
            head_width: 64,
            context_length: 32_768,
            rope_base: 1e6,
            norm_epsilon: 1e-6,
            vocabulary: 151_936,
            family: Family::Qwen2,
        };
        match self {
            Self::SmolLm2Of135M => Sizes {
                architecture: "llama",
                layers: 30,
                width: 576,
                forward: 1_536,
                heads: 9,
                kv_heads: 3,
                context_length: 8_192,
                rope_base: 1e5,
                norm_epsilon: 1e-5,
                vocabulary: 49_152,
                family: Family::SmolLm,
                ..qwen
            },
            Self::Qwen25Of05B => qwen,
            Self::Llama32Of1B => Sizes {
                architecture: "llama",
                layers: 16,
                width: 2_048,
                forward: 8_192,
                heads: 32,
                kv_heads: 8,
                context_length: 131_072,
                rope_base: 5e5,
                norm_epsilon: 1e-5,
                vocabulary: 128_256,
                family: Family::Llama3,
                ..qwen
            },
            Self::Qwen25Of15B => Sizes { layers: 28, width: 1_536, forward: 8_960, heads: 12, head_width: 128, ..qwen },
        }
    }
}

impl Quant {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Q4_0, Self::Q4KM, Self::Q8_0];

    /// `general.file_type`, as `llama.h` numbers it.
    fn file_type(self) -> u32 {
        match self {
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q4KM => 15,
        }
    }

    /// The type of a matrix with rows of `row` numbers, after `llama_tensor_get_type` of llama-quantize.
    fn kind(self, part: Part, row: u32) -> Kind {
        let wanted = match (self, part) {
            (Self::Q8_0, _) => Kind::Q8_0,
            (_, Part::Embedding) | (Self::Q4KM, Part::Weighty) => Kind::Q6K,
            (Self::Q4_0, _) => Kind::Q4_0,
            (Self::Q4KM, Part::Plain) => Kind::Q4K,
        };
        // Rows that no block of 256 divides get the next type of 32.
        match wanted {
            Kind::Q4K if !row.is_multiple_of(256) => Kind::Q5_0,
            Kind::Q6K if !row.is_multiple_of(256) => Kind::Q8_0,
            kind => kind,
        }
    }
}

/// What a matrix is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Embedding, and output, which all these models tie to it.
    Embedding,
    /// One that a mixture gives more bits.
    Weighty,
    Plain,
}

/// Whether a mixture gives the values and the last matrix of this layer more bits (`use_more_bits` of llama-quantize).
fn more_bits(layer: u32, layers: u32) -> bool {
    layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
}

/// Writes the model; the same bytes for the same shape and quantisation.
pub(crate) fn write(path: &Path, shape: Shape, quant: Quant) -> anyhow::Result<()> {
    let sizes = shape.sizes();
    let vocabulary = Vocabulary::of(sizes.family, sizes.vocabulary as usize);
    let mut entries = metadata(&sizes, quant, &format!("{} {} random", name_of(&shape), name_of(&quant)));
    entries.extend(vocabulary.metadata());
    gguf::write(path, entries, &tensors(&sizes, quant))
}

fn metadata(sizes: &Sizes, quant: Quant, name: &str) -> Vec<(String, gguf::Value)> {
    use gguf::Value::{F32, Text, U32};
    let of = |key: &str| format!("{}.{key}", sizes.architecture);
    vec![
        ("general.architecture".to_owned(), Text(sizes.architecture.to_owned())),
        ("general.name".to_owned(), Text(name.to_owned())),
        ("general.file_type".to_owned(), U32(quant.file_type())),
        ("general.quantization_version".to_owned(), U32(2)),
        (of("block_count"), U32(sizes.layers)),
        (of("context_length"), U32(sizes.context_length)),
        (of("embedding_length"), U32(sizes.width)),
        (of("feed_forward_length"), U32(sizes.forward)),
        (of("attention.head_count"), U32(sizes.heads)),
        (of("attention.head_count_kv"), U32(sizes.kv_heads)),
        (of("attention.layer_norm_rms_epsilon"), F32(sizes.norm_epsilon)),
        (of("rope.freq_base"), F32(sizes.rope_base)),
        (of("rope.dimension_count"), U32(sizes.head_width)),
        (of("vocab_size"), U32(sizes.vocabulary)),
    ]
}

fn tensors(sizes: &Sizes, quant: Quant) -> Vec<Tensor> {
    let (width, forward) = (sizes.width, sizes.forward);
    let (queries, keys) = (sizes.heads * sizes.head_width, sizes.kv_heads * sizes.head_width);
    let matrix = |name: String, row: u32, rows: u32, part: Part| {
        Tensor::new(name, &[row, rows], Fill::Random(quant.kind(part, row)))
    };
    let mut all = vec![
        matrix("token_embd.weight".to_owned(), width, sizes.vocabulary, Part::Embedding),
        Tensor::new("output_norm.weight", &[width], Fill::One),
    ];
    if sizes.family == Family::Llama3 {
        all.push(Tensor::new("rope_freqs.weight", &[sizes.head_width / 2], Fill::One));
    }
    for layer in 0..sizes.layers {
        let of = |part: &str| format!("blk.{layer}.{part}");
        let weighty = if more_bits(layer, sizes.layers) { Part::Weighty } else { Part::Plain };
        all.push(matrix(of("attn_q.weight"), width, queries, Part::Plain));
        all.push(matrix(of("attn_k.weight"), width, keys, Part::Plain));
        all.push(matrix(of("attn_v.weight"), width, keys, weighty));
        all.push(matrix(of("attn_output.weight"), queries, width, Part::Plain));
        all.push(matrix(of("ffn_gate.weight"), width, forward, Part::Plain));
        all.push(matrix(of("ffn_up.weight"), width, forward, Part::Plain));
        all.push(matrix(of("ffn_down.weight"), forward, width, weighty));
        all.push(Tensor::new(of("attn_norm.weight"), &[width], Fill::One));
        all.push(Tensor::new(of("ffn_norm.weight"), &[width], Fill::One));
        if sizes.family == Family::Qwen2 {
            for (part, len) in [("attn_q.bias", queries), ("attn_k.bias", keys), ("attn_v.bias", keys)] {
                all.push(Tensor::new(of(part), &[len], Fill::Random(Kind::F32)));
            }
        }
    }
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Weights of a shape, the tied output counted once.
    fn parameters(shape: Shape) -> u64 {
        tensors(&shape.sizes(), Quant::Q8_0).iter().map(Tensor::elements).sum()
    }

    #[test]
    fn the_shapes_have_the_parameters_that_their_makers_state() {
        // Hugging Face's model pages: 134,515,008; 494,032,768; 1,235,814,400 (and 32 rope factors); 1,543,714,304.
        assert_eq!(parameters(Shape::SmolLm2Of135M), 134_515_008);
        assert_eq!(parameters(Shape::Qwen25Of05B), 494_032_768);
        assert_eq!(parameters(Shape::Llama32Of1B), 1_235_814_400 + 32);
        assert_eq!(parameters(Shape::Qwen25Of15B), 1_543_714_304);
    }

    #[test]
    fn rows_of_no_256_get_blocks_of_32() {
        assert_eq!(Quant::Q4KM.kind(Part::Plain, 896), Kind::Q5_0);
        assert_eq!(Quant::Q4KM.kind(Part::Weighty, 4_864), Kind::Q6K);
        assert_eq!(Quant::Q4_0.kind(Part::Embedding, 896), Kind::Q8_0);
        assert_eq!(Quant::Q4_0.kind(Part::Embedding, 2_048), Kind::Q6K);
        assert_eq!(Quant::Q4_0.kind(Part::Plain, 896), Kind::Q4_0);
        assert_eq!(Quant::Q8_0.kind(Part::Plain, 2_048), Kind::Q8_0);
    }

    #[test]
    fn half_of_the_layers_get_more_bits() {
        let chosen: Vec<u32> = (0..16).filter(|layer| more_bits(*layer, 16)).collect();
        assert_eq!(chosen, [0, 1, 4, 7, 10, 13, 14, 15]);
    }

    #[test]
    fn the_engine_reads_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        write(&path, Shape::SmolLm2Of135M, Quant::Q4KM).unwrap();
        let file = tidegate_engine::model_file::inspect(&path).unwrap();
        assert_eq!((file.architecture.as_str(), file.context_length), ("llama", 8_192));
        // 135M of mostly Q5_0 (rows of 576): between 4 and 8 bits each, and the vocabulary.
        let bytes = std::fs::metadata(&path).unwrap().len();
        assert!((90_000_000..150_000_000).contains(&bytes), "{bytes}");
    }
}
