"""Which files of a checkpoint's folder mean something to those who load it, by their names.

Three kinds: **companions**, which a loader or a reader of the model needs and which go along with
merged weights; **weights**, in any format or wrapping; and strangers, which are nobody's business.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from safeswap.checkpoint.inside import open_plain
from safeswap.errors import CheckpointError

LARGEST = 128 << 20
"""Bytes of a companion: several times the largest tokenizer; what is larger is something else."""
TEMPLATES = ("chat_templates", "additional_chat_templates")
"""Folders in which transformers keeps further chat templates."""

_TOKENIZER_WORDS = (
    *("tokenizer", "tekken", "vocab", "merges", "encoder.json", "bpe.codes", "added_tokens"),
    *("special_tokens", "normalizer", "chat_template"),
)
_COMPANIONS = (
    # what the model is and how it generates
    *("config.json", "generation_config.json"),
    # how text becomes ids: the names that transformers' tokenizers and mistral-common open
    *("tokenizer.json", "tokenizer.[0-9]*.json", "tokenizer_config.json", "tokenizer.txt"),
    *("tokenizer.model", "tokenizer.model.v[0-9]*", "tokenizer.tiktoken", "tekken.json"),
    *("vocab.json", "vocab.txt", "vocab.bpe", "vocab.model", "merges.txt", "encoder.json"),
    *("vocab-src.json", "vocab-tgt.json", "target_vocab.json", "entity_vocab.json", "dict.txt"),
    *("added_tokens.json", "special_tokens_map.json", "normalizer.json", "bpe.codes", "emoji.json"),
    *("spiece.model", "sentencepiece.model", "sentencepiece.bpe.model", "spm.model"),
    *("spm_char.model", "tiktoken.model", "source.spm", "target.spm", "*.tiktoken"),
    *("byte_maps.json", "word_shape.json", "word_pronunciation.json", "prophetnet.tokenizer"),
    # how a chat becomes text
    *("chat_template.jinja", "chat_template.json"),
    # pictures, sound and films
    *("preprocessor_config.json", "processor_config.json", "image_processor_config.json"),
    *("video_preprocessor_config.json", "video_processor_config.json"),
    *("feature_extractor_config.json", "audio_tokenizer_config.json"),
)
_TOKENIZERS = tuple(
    kind for kind in _COMPANIONS if kind.startswith(_TOKENIZER_WORDS) or kind.startswith("*.")
)
_LEGAL = ("licen[cs]e*", "notice*", "use_policy*", "copying*", "citation*", "acknowledg*")
_LEGAL_KINDS = ("", ".md", ".txt", ".rst", ".pdf", ".cff", ".html")
_WEIGHTS = (
    *("*.safetensors*", "*.bin", "*.bin.*", "*.pt", "*.pt.*", "*.pth", "*.pth.*", "*.ckpt*"),
    *("*.gguf*", "*.ggml*", "*.ggjt*", "*.h5", "*.h5.*", "*.hdf5*", "*.keras", "*.msgpack*"),
    *("*.onnx*", "*.distcp*", "*.npz*", "*.npy*", "*.pkl*", "*.pickle*", "*.tflite*", "*.mlmodel*"),
    *("*.mlpackage*", "*.engine", "*.plan", "*.nemo", "*.ot", "*.pdparams*", "*.llamafile*"),
    *("*.tar", "*.tar.*", "*.tgz", "*.zip", "*.7z", "*.rar", "*.gz", "*.xz", "*.bz2", "*.zst"),
    *("*.bak", "*.old", "*.orig", "*.torrent", "*.parquet", "*.arrow", "*.feather"),
    *("consolidated*", "pytorch_model*", "adapter_model*", "flax_model*", "tf_model*"),
)
_INDEX = "*.index.json"
_LOADED = (
    *("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", _INDEX, "adapter_*", "*config.json"),
    *("tokenizer*", "chat_template*", "vocab.*", "params.json"),
)
_MAGIC = (
    *(b"PK\x03\x04", b"\x1f\x8b", b"GGUF", b"ggjt", b"tjgg", b"lmgg", b"\x89HDF", b"\x93NUMPY"),
    *(b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"7z\xbc\xaf", b"BZh", b"Rar!", b"PAR1", b"ARROW1"),
    *(b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
)
"""First bytes of archives, pickles and formats of weights."""


def is_companion(name: str, *, code: bool = False) -> bool:
    """Whether a loader or reader of the model needs the file.

    Args:
        name: relative to the checkpoint's folder.
        code: the configuration names classes of the folder's own code.
    """
    folder, _, last = name.rpartition("/")
    if folder:
        return folder in TEMPLATES and last.endswith(".jinja")
    if last.endswith(".index.json"):
        return False
    if code and last.endswith(".py"):
        return True
    lower = last.lower()
    legal = any(fnmatchcase(lower, kind) for kind in _LEGAL) and (
        Path(lower).suffix in _LEGAL_KINDS or not Path(lower).suffix[1:].isalpha()
    )
    return legal or any(fnmatchcase(last, kind) for kind in _COMPANIONS)


def companion_names() -> list[str]:
    """The names that companions have word for word, for folders that cannot be listed."""
    legal = [f"{name}{kind}" for name in ("LICENSE", "NOTICE") for kind in ("", ".txt", ".md")]
    return [name for name in _COMPANIONS if not any(mark in name for mark in "*[?")] + legal


def is_tokenizer(name: str) -> bool:
    """Whether a companion says how text becomes ids and a chat becomes text."""
    folder, _, last = name.rpartition("/")
    return bool(folder) or any(fnmatchcase(last, kind) for kind in _TOKENIZERS)


def is_weights(name: str) -> bool:
    """Whether a file holds, or may hold, weights, by its name."""
    last = name.rpartition("/")[2].lower()
    return fnmatchcase(last, _INDEX) or any(fnmatchcase(last, kind) for kind in _WEIGHTS)


def looks_like_weights(path: Path) -> bool:
    """Whether a file that there is has the first bytes of weights, an archive or a pickle.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with open_plain(path) as stream:
            head = stream.read(16)
    except CheckpointError:  # a pipe or device holds nothing
        return False
    length = int.from_bytes(head[:8], "little")
    safetensors = len(head) > 8 and head[8:9] == b"{" and 2 <= length <= 100_000_000
    return safetensors or head.startswith(_MAGIC)


def is_loaded(name: str) -> bool:
    """Whether loaders may open the file: what no name can be trusted to leave alone."""
    return is_companion(name, code=True) or any(fnmatchcase(name, kind) for kind in _LOADED)
