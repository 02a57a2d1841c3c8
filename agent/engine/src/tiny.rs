//! Small GGUF models with random weights, for tests and rigs: llama.cpp loads them, and what they say is meaningless but
//! always the same. [`Shape::slow`] takes its time, so that something can happen in the midst of an answer.
//!
//! They speak Tidegate's own prompt format (`<|sys|>…<|user|>…<|bot|>…<|end|>`) over a byte-level vocabulary.

use crate::gguf::block_of;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

/// The chat template of these models, and of Tidegate's shipped ones.
pub const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'system' %}<|sys|>{{ m.content }}{% elif m.role == \
    'user' %}<|user|>{{ m.content }}{% elif m.role == 'assistant' %}<|bot|>{{ m.content }}<|end|>{% endif %}{% endfor \
    %}{% if add_generation_prompt %}<|bot|>{% endif %}";
/// Control tokens, after the 256 bytes and the merges.
const CONTROL: [&str; 5] = ["<|sys|>", "<|user|>", "<|bot|>", "<|end|>", "<|pad|>"];
/// Pairs of letters that are tokens of their own.
const MERGES: [&str; 36] = [
    "th", "he", "in", "er", "an", "re", "on", "at", "en", "nd", "ti", "es", "or", "te", "of", "ed", "is", "it", "al",
    "ar", "st", "to", "nt", "ng", "se", "ha", "as", "ou", "io", "le", "ve", "co", "me", "de", "hi", "ri",
];
/// Bytes between tensors.
const ALIGNMENT: u64 = 32;
const TYPE_U32: u32 = 4;
const TYPE_I32: u32 = 5;
const TYPE_F32: u32 = 6;
const TYPE_BOOL: u32 = 7;
const TYPE_TEXT: u32 = 8;
const TYPE_ARRAY: u32 = 9;

/// What a model is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// `general.name`.
    pub name: String,
    /// Layers, at most 512.
    pub layers: u32,
    /// Width, a multiple of 32.
    pub width: u32,
    /// Width of the feed-forward part, a multiple of 32.
    pub forward: u32,
    /// Attention heads; the width is a multiple of them.
    pub heads: u32,
    /// Context window, in tokens.
    pub context_length: u32,
    /// Other weights for another seed.
    pub seed: u64,
    /// What the layers hold.
    pub layer_weights: LayerWeights,
    /// `tokenizer.chat_template`; none leaves it out.
    pub template: Option<String>,
    /// Control tokens beside those of the template, as other families have them.
    pub control: Vec<String>,
}

/// What the layers of a model hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerWeights {
    /// Random numbers.
    Random,
    /// Zeros, as a hole in the file: the layers cost their time and say nothing; embedding and output speak. They are
    /// of a type that takes long to unpack (IQ3_S), so that little memory costs much time. Widths are multiples of 256.
    Zero,
}

impl Shape {
    /// Two layers of 64, under 1 MB, some thousand tokens per second.
    #[must_use]
    pub fn tiny() -> Self {
        Self {
            name: "tiny".to_owned(),
            layers: 2,
            width: 64,
            forward: 128,
            heads: 4,
            context_length: 512,
            seed: 1,
            layer_weights: LayerWeights::Random,
            template: Some(TEMPLATE.to_owned()),
            control: Vec::new(),
        }
    }

    /// Slow on any machine: 20 ms and more per token on one core, from 72 MB of zeros, which take no room on disk.
    #[must_use]
    pub fn slow() -> Self {
        Self {
            name: "slow".to_owned(),
            layers: 40,
            width: 512,
            forward: 2_048,
            heads: 8,
            layer_weights: LayerWeights::Zero,
            ..Self::tiny()
        }
    }
}

/// Writes a model.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, shape: &Shape) -> io::Result<()> {
    let tensors = tensors(shape);
    let mut file = BufWriter::new(File::create(path)?);
    let head = head(shape, &tensors);
    file.write_all(&head)?;
    let start = (head.len() as u64).next_multiple_of(ALIGNMENT);
    let mut random = Random(shape.seed.wrapping_mul(2).wrapping_add(1));
    let mut end = start;
    for tensor in &tensors {
        let at = end;
        end = (at + tensor.bytes()).next_multiple_of(ALIGNMENT);
        let scale = match tensor.fill {
            Fill::Zero => continue,
            Fill::One => None,
            Fill::Random(scale) => Some(scale),
        };
        file.seek(SeekFrom::Start(at))?;
        for _ in 0..tensor.elements() {
            let value = scale.map_or(1.0, |scale| random.next() * scale);
            file.write_all(&value.to_le_bytes())?;
        }
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.set_len(end)
}

#[derive(Debug, Clone, Copy)]
enum Fill {
    Zero,
    One,
    Random(f32),
}

struct Tensor {
    name: String,
    dimensions: Vec<u64>,
    fill: Fill,
}

impl Tensor {
    fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }

    /// GGML type: F32, or IQ3_S for zeros.
    fn kind(&self) -> u32 {
        match self.fill {
            Fill::Zero => 21,
            Fill::One | Fill::Random(_) => 0,
        }
    }

    fn bytes(&self) -> u64 {
        let (block, bytes) = block_of(self.kind()).expect("both types are known");
        self.elements() / block * bytes
    }
}

fn tensors(shape: &Shape) -> Vec<Tensor> {
    let (width, forward) = (u64::from(shape.width), u64::from(shape.forward));
    let vocabulary = vocabulary(shape).len() as u64;
    let of = |name: String, dimensions: &[u64], fill| Tensor { name, dimensions: dimensions.to_vec(), fill };
    let fill = match shape.layer_weights {
        LayerWeights::Random => Fill::Random(0.2),
        LayerWeights::Zero => Fill::Zero,
    };
    let mut tensors = vec![
        of("token_embd.weight".to_owned(), &[width, vocabulary], Fill::Random(1.0)),
        of("output_norm.weight".to_owned(), &[width], Fill::One),
        of("output.weight".to_owned(), &[width, vocabulary], Fill::Random(1.0)),
    ];
    for layer in 0..shape.layers {
        for (part, dimensions) in [
            ("attn_q", [width, width]),
            ("attn_k", [width, width]),
            ("attn_v", [width, width]),
            ("attn_output", [width, width]),
            ("ffn_gate", [width, forward]),
            ("ffn_up", [width, forward]),
            ("ffn_down", [forward, width]),
        ] {
            tensors.push(of(format!("blk.{layer}.{part}.weight"), &dimensions, fill));
        }
        for part in ["attn_norm", "ffn_norm"] {
            tensors.push(of(format!("blk.{layer}.{part}.weight"), &[width], Fill::One));
        }
    }
    tensors
}

/// Numbers in -1..1 that only a test needs to believe in (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let bits = u16::try_from(self.0 >> 48).expect("16 bits are left");
        f32::from(bits) / 32_768.0 - 1.0
    }
}

fn head(shape: &Shape, tensors: &[Tensor]) -> Vec<u8> {
    let metadata = metadata(shape);
    let mut head = b"GGUF".to_vec();
    head.extend(3_u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        text(&mut head, &key);
        head.extend(value);
    }
    let mut offset = 0_u64;
    for tensor in tensors {
        text(&mut head, &tensor.name);
        head.extend(u32::try_from(tensor.dimensions.len()).expect("two at most").to_le_bytes());
        tensor.dimensions.iter().for_each(|size| head.extend(size.to_le_bytes()));
        head.extend(tensor.kind().to_le_bytes());
        head.extend(offset.to_le_bytes());
        offset = (offset + tensor.bytes()).next_multiple_of(ALIGNMENT);
    }
    head
}

fn metadata(shape: &Shape) -> BTreeMap<String, Vec<u8>> {
    let words = vocabulary(shape);
    let place = |token: &str| words.iter().position(|word| word == token).expect("it is a control token");
    let (end, pad) = (place("<|end|>"), place("<|pad|>"));
    let kinds: Vec<u8> =
        (0..words.len()).flat_map(|i| (if i < 256 + MERGES.len() { 1_i32 } else { 3_i32 }).to_le_bytes()).collect();
    let merges: Vec<String> = MERGES.iter().map(|pair| format!("{} {}", &pair[..1], &pair[1..])).collect();
    let number = |n: usize| tagged(TYPE_U32, &u32::try_from(n).expect("numbers are small").to_le_bytes());
    let mut entries = vec![
        ("general.architecture", tagged_text("llama")),
        ("general.name", tagged_text(&shape.name)),
        ("llama.block_count", number(shape.layers as usize)),
        ("llama.context_length", number(shape.context_length as usize)),
        ("llama.embedding_length", number(shape.width as usize)),
        ("llama.feed_forward_length", number(shape.forward as usize)),
        ("llama.attention.head_count", number(shape.heads as usize)),
        ("llama.attention.head_count_kv", number(shape.heads as usize)),
        ("llama.attention.layer_norm_rms_epsilon", tagged(TYPE_F32, &1e-5_f32.to_le_bytes())),
        ("llama.rope.dimension_count", number((shape.width / shape.heads) as usize)),
        ("llama.vocab_size", number(words.len())),
        ("tokenizer.ggml.model", tagged_text("gpt2")),
        ("tokenizer.ggml.pre", tagged_text("gpt-2")),
        ("tokenizer.ggml.tokens", texts(&words)),
        ("tokenizer.ggml.token_type", array(TYPE_I32, words.len(), &kinds)),
        ("tokenizer.ggml.merges", texts(&merges)),
        ("tokenizer.ggml.bos_token_id", number(end)),
        ("tokenizer.ggml.eos_token_id", number(end)),
        ("tokenizer.ggml.padding_token_id", number(pad)),
        ("tokenizer.ggml.add_bos_token", tagged(TYPE_BOOL, &[0])),
    ];
    if let Some(template) = &shape.template {
        entries.push(("tokenizer.chat_template", tagged_text(template)));
    }
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Bytes as GPT-2 writes them, then the merges, then the control tokens.
fn vocabulary(shape: &Shape) -> Vec<String> {
    let bytes = (0..=255_u8).map(|byte| visible(byte).to_string());
    bytes.chain(MERGES.iter().chain(&CONTROL).map(|word| (*word).to_owned())).chain(shape.control.clone()).collect()
}

/// GPT-2's visible stand-in for a byte: itself where it is printable, else a character from U+0100 on.
fn visible(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|b| !printable(*b)).count();
    char::from_u32(256 + u32::try_from(before).expect("68 at most")).expect("U+0100 to U+0143 are characters")
}

fn tagged(kind: u32, value: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes(), value].concat()
}

fn tagged_text(value: &str) -> Vec<u8> {
    let mut bytes = TYPE_TEXT.to_le_bytes().to_vec();
    text(&mut bytes, value);
    bytes
}

fn text(bytes: &mut Vec<u8>, value: &str) {
    bytes.extend((value.len() as u64).to_le_bytes());
    bytes.extend(value.as_bytes());
}

fn texts(values: &[String]) -> Vec<u8> {
    let mut body = Vec::new();
    values.iter().for_each(|value| text(&mut body, value));
    array(TYPE_TEXT, values.len(), &body)
}

fn array(kind: u32, len: usize, body: &[u8]) -> Vec<u8> {
    [&TYPE_ARRAY.to_le_bytes()[..], &kind.to_le_bytes(), &(len as u64).to_le_bytes(), body].concat()
}
