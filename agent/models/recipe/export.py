"""Writes a student as GGUF: F16, Q8_0 or Q4_0, with the vocabulary and the chat template."""

from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize

from model import Decoder
from vocabulary import CONTROL, END, Vocabulary

KINDS = {
    "f16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "q4_0": gguf.GGMLQuantizationType.Q4_0,
}
FILE_TYPES = {
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
}
DESCRIPTION = (
    "Writes the intent of an utterance (system message `intent`) or the JSON action of a device command "
    "(system message `action`). Trained from scratch on CLINC150 (CC BY 3.0) and home-assistant/intents (CC BY 4.0)."
)
LICENSE = "Apache-2.0"
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}<|sys|>{{ m.content }}"
    "{% elif m.role == 'user' %}<|user|>{{ m.content }}"
    "{% elif m.role == 'assistant' %}<|bot|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|bot|>{% endif %}"
)


def named_tensors(student: Decoder) -> dict[str, np.ndarray]:
    """The weights under llama.cpp's names. The output table is left out: llama.cpp then uses the input table."""
    tensors = {"token_embd.weight": student.embedding.weight, "output_norm.weight": student.final_norm.weight}
    for number, block in enumerate(student.blocks):
        prefix = f"blk.{number}."
        query, key, value = block.query_key_value.weight.chunk(3)
        gate, up = block.gate_up.weight.chunk(2)
        tensors |= {
            prefix + "attn_norm.weight": block.attention_norm.weight,
            prefix + "ffn_norm.weight": block.feed_norm.weight,
            prefix + "attn_q.weight": query,
            prefix + "attn_k.weight": key,
            prefix + "attn_v.weight": value,
            prefix + "attn_output.weight": block.attention_out.weight,
            prefix + "ffn_gate.weight": gate,
            prefix + "ffn_up.weight": up,
            prefix + "ffn_down.weight": block.down.weight,
        }
    return {name: tensor.detach().cpu().float().numpy() for name, tensor in tensors.items()}


def kind_of(name: str, kind: str) -> gguf.GGMLQuantizationType:
    """Norms are tiny and touch everything, so they stay F32."""
    return gguf.GGMLQuantizationType.F32 if "norm" in name else KINDS[kind]


def rounded(student: Decoder, kind: str) -> Decoder:
    """The student with the weights that a quantised file holds, to measure what quantising costs."""
    copy = Decoder(student.shape, student.embedding.num_embeddings, 0.0)
    copy.load_state_dict(student.state_dict())
    for weight in (weight for weight in copy.parameters() if weight.dim() == 2):
        stored = quantize(weight.detach().numpy(), KINDS[kind])
        weight.data.copy_(torch.from_numpy(dequantize(stored, KINDS[kind]).copy()))
    return copy.eval()


def piece_types(vocabulary: Vocabulary) -> list[int]:
    user_defined = set(vocabulary.user_defined)
    kinds = gguf.TokenType
    return [
        int(kinds.CONTROL if piece in CONTROL else kinds.USER_DEFINED if piece in user_defined else kinds.NORMAL)
        for piece in vocabulary.pieces
    ]


def write_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    end = vocabulary.ids[END]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary.pieces)
    writer.add_token_types(piece_types(vocabulary))
    writer.add_token_merges([f"{left} {right}" for left, right in vocabulary.merges])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def write_shape(writer: gguf.GGUFWriter, student: Decoder, kind: str) -> None:
    shape = student.shape
    writer.add_name(shape.name)
    writer.add_description(DESCRIPTION)
    writer.add_license(LICENSE)
    writer.add_languages(["en"])
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.positions_max)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_vocab_size(student.embedding.num_embeddings)


def write_gguf(student: Decoder, vocabulary: Vocabulary, kind: str, path: Path) -> None:
    """Writes beside the target and renames, so that a reader never sees half a file."""
    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    write_shape(writer, student, kind)
    write_vocabulary(writer, vocabulary)
    for name, values in named_tensors(student).items():
        tensor_kind = kind_of(name, kind)
        writer.add_tensor(name, quantize(values, tensor_kind), raw_dtype=tensor_kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.rename(path)
