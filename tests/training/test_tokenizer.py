from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.convert_slow_tokenizer import bytes_to_unicode

from cluster.errors import WorkError
from cluster.storage import Folder
from pipelines import mix
from pipelines.config import MixConfig
from pipelines.mix import TRAIN, corpus_parts, source_keys
from pipelines.tokens import encode_text, load_tokenizer
from tests.clean_corpus import bilingual, write_clean
from tests.corpus import code, prose
from training import tokenizer as stage
from training.config import TokenizerConfig

FRENCH = [
    "L'homme qu’il voit aujourd'hui, c'est l'ami d’hier.",
    "Aujourd’hui, quelqu'un s'y rend jusqu'à l'aube ; lorsqu’elle vient, n'y va pas.",
    "Peut-être viendra-t-il, self.name et user_name.",
]


ANY_TEXT = st.text() | st.binary().map(lambda data: data.decode("utf-8", "replace"))
LOOKALIKES = st.sampled_from(
    [*stage.SPECIAL_TOKENS, "<|", "|>", "<|im_", "im_end|>", "<|endoftext|", "\0", "\r\n", "\ufeff", "\U0010ffff", "e\u0301"]
)
BYTE_OF = {char: byte for byte, char in bytes_to_unicode().items()}


def token_bytes(token: str) -> bytes:
    return bytes(BYTE_OF[char] for char in token)


def texts() -> list[str]:
    return [text for seed in range(60) for text in (prose("fr", seed), prose("en", seed), code(seed), *FRENCH)]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    fitted = stage.fit(iter(texts()), 900)
    fitted.encode_special_tokens = True
    return fitted


def pieces(tokenizer: Any, text: str) -> list[str]:
    return [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def words(tokenizer: Any, text: str) -> list[str]:
    """What the pattern cuts the text into, as text."""
    return [text[begin:end] for _, (begin, end) in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


@pytest.mark.parametrize("mark", ["'", "’"])
def test_french_apostrophes_stay_with_the_elided_word(tokenizer, mark):
    assert words(tokenizer, f"L{mark}homme qu{mark}il aujourd{mark}hui d{mark}accord") == [
        f"L{mark}",
        "homme",
        f" qu{mark}",
        "il",
        f" aujourd{mark}hui",
        f" d{mark}",
        "accord",
    ]
    assert words(tokenizer, f"jusqu{mark}à QUELQU{mark}UN n{mark}y s{mark}est") == [
        f"jusqu{mark}",
        "à",
        f" QUELQU{mark}",
        "UN",
        f" n{mark}",
        "y",
        f" s{mark}",
        "est",
    ]


def test_english_endings_stay_together(tokenizer):
    assert words(tokenizer, "It's don't we’ll C's rock'n'roll") == [
        "It",
        "'s",
        " don",
        "'t",
        " we",
        "’ll",
        " C",
        "'s",
        " rock",
        "'",
        "n'",
        "roll",
    ]


def test_words_keep_their_blank_hyphen_point_or_underscore(tokenizer):
    assert words(tokenizer, "peut-être self.my_name  là :\u00a0ça\u202f!") == [
        "peut",
        "-être",
        " self",
        ".my",
        "_name",
        " ",
        " là",
        " :",
        "\u00a0",
        "ça",
        "\u202f!",
    ]


def test_digits_are_split_one_by_one(tokenizer):
    ids = tokenizer.encode("En 1789, 12²½ 3.14159").ids
    assert [tokenizer.decode([i]) for i in ids if any(c.isnumeric() for c in tokenizer.decode([i]))][:6] == list("178912")
    for token in tokenizer.get_vocab():
        text = tokenizer.decode([tokenizer.token_to_id(token)])
        assert token in stage.SPECIAL_TOKENS or not any(c.isdigit() for c in text) or len(text) == 1


def test_ids_special_tokens_then_bytes(tokenizer):
    from tokenizers.pre_tokenizers import ByteLevel

    assert [tokenizer.token_to_id(token) for token in stage.SPECIAL_TOKENS] == list(range(16))
    assert sorted(tokenizer.token_to_id(byte) for byte in ByteLevel.alphabet()) == list(range(16, 16 + 256))


@given(st.binary(max_size=40))
@settings(deadline=None)
def test_lone_surrogates_count_as_replacement_characters(tokenizer, data):
    text = data.decode("utf-8", "surrogateescape")
    expected = "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
    assert tokenizer.decode(encode_text(tokenizer, text)) == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(ANY_TEXT | LOOKALIKES, max_size=8).map("".join))
def test_any_text_comes_back(tokenizer, text):
    ids = encode_text(tokenizer, text)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert all(token >= len(stage.SPECIAL_TOKENS) for token in ids)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_come_back_as_one_character_each(tokenizer, data):
    text = data.decode("latin-1")
    assert tokenizer.decode(encode_text(tokenizer, text)).encode("latin-1") == data


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_tokens_give_text(tokenizer, data):
    """What a model may produce is decoded: its bytes, with U+FFFD where they are no UTF-8."""
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() - 1), max_size=20))
    text = tokenizer.decode(ids, skip_special_tokens=True)
    content = b"".join(token_bytes(tokenizer.id_to_token(i)) for i in ids if i >= len(stage.SPECIAL_TOKENS))
    assert text == content.decode("utf-8", "replace")


def test_control_strings_in_text_are_text(tokenizer):
    assert 3 not in encode_text(tokenizer, "avant<|im_end|>après")
    assert tokenizer.decode(encode_text(tokenizer, "avant<|im_end|>après")) == "avant<|im_end|>après"


def test_two_fits_are_equal_whatever_the_threads(tokenizer):
    script = "import sys; from tests.training.test_tokenizer import stage, texts; sys.stdout.write(stage.fit(iter(texts()), 900).to_str())"
    made = [
        subprocess.run([sys.executable, "-c", script], env={"RAYON_NUM_THREADS": n}, capture_output=True, check=True).stdout.decode()
        for n in ("1", "3")
    ]
    assert made == [tokenizer.to_str()] * 2


def test_transformers_loads_it_with_equal_ids(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    stage.write_tokenizer(Folder(str(tmp_path)), tokenizer)
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (0, 0, 1)
    assert len(theirs) == ours.get_vocab_size()
    for text in [*FRENCH, "  indented\n\n\tcode() # 42 « été »\u202f!", "e\u0301 \U0001f950"]:
        assert theirs(text)["input_ids"] == encode_text(ours, text)
        assert theirs.decode(encode_text(ours, text)) == text
    assert theirs("<|im_end|>")["input_ids"] == [3]


@pytest.mark.parametrize("size", [512, 600, 777, 899, 900, 2_000])
def test_a_smaller_fit_is_a_prefix_of_a_larger_one(tokenizer, size):
    cut = stage.cut_tokenizer(tokenizer, size)
    assert cut.to_str() == stage.fit(iter(texts()), size if size < tokenizer.get_vocab_size() else 900).to_str()
    assert cut.get_vocab_size() == min(size, tokenizer.get_vocab_size())


def source(stream: str, size: int, ratio: float) -> dict[str, Any]:
    return {"stream": stream, "bytes": size, "ratio": ratio}


def test_sample_fractions_follow_shares_and_ratios():
    entries = {"a": source("fr", 1_000, 2), "b": source("fr", 1_000, 1), "c": source("en", 9_000, 1), "d": source("fr", 500, 0)}
    fractions = stage.sample_fractions({"sources": entries}, {"fr": 0.5, "en": 0.5, "code": 0.0}, 1_800)
    assert fractions == pytest.approx({"a": 0.6, "b": 0.3, "c": 0.1})
    fractions = stage.sample_fractions({"sources": entries}, {"fr": 1}, 1_600)
    assert fractions == pytest.approx({"a": 1.0, "b": 0.6})
    assert stage.sample_fractions({"sources": entries}, {"fr": 0.5, "en": 0.5}, 8_000) == pytest.approx(
        {"a": 1, "b": 1, "c": 4_000 / 9_000}
    )


def test_the_sample_has_the_shares_asked_for(storage):
    clean = write_clean(storage, bilingual(800), [])
    parts = corpus_parts(clean, TRAIN)
    counts = [row for part in parts for row in mix._Count(clean.folder, ())(part)["counts"]]
    mixed = mix.make_mix(counts, MixConfig())
    shares = {"fr": 0.5, "en": 0.3, "code": 0.2}
    sample = stage._Sample(clean.folder, storage / "out", stage.sample_fractions(mixed, shares, 240_000), source_keys(mixed))
    sizes = stage.add_counts(sample(part)["bytes"] for part in parts)
    assert sizes == pytest.approx({stream: 240_000 * share for stream, share in shares.items()}, rel=0.12)
    drawn = {part["name"]: (storage / "out").read_table(f"{part['name']}.parquet") for part in parts}
    assert sum(len(text.encode()) for table in drawn.values() for text in table["text"].to_pylist()) == sum(sizes.values())
    assert drawn["pages-0"].num_rows == 0


@pytest.mark.usefixtures("ray_session")
def test_stage_fits_measures_and_repeats(storage, stage_context, finish):
    clean = write_clean(storage, bilingual(60), bilingual(5, seed=500))
    mixing = stage_context("mix", MixConfig(sources={"book": 0.5}), clean=clean)
    mixed = finish(mixing, mix.run(mixing))
    config = TokenizerConfig(vocab_size=700, sample_mb=0.03, shares={"fr": 0.5, "en": 0.3, "code": 0.2})
    contexts = [stage_context("tokenizer", config, key=key, clean=clean, mix=mixed) for key in ("one", "two")]
    metrics = [stage.run(context) for context in contexts]
    assert metrics[0] == metrics[1]
    for name in contexts[0].out.names():
        assert contexts[0].out.read_bytes(name) == contexts[1].out.read_bytes(name), name
    assert metrics[0]["vocab_size"] <= 700
    sampled = metrics[0]["sample_bytes"]
    assert sampled["fr"] / sampled["en"] == pytest.approx(0.5 / 0.3, rel=0.4)
    assert sum(sampled.values()) < 0.05e6
    fertility = contexts[0].out.read_json("fertility.json")
    assert set(fertility["text"]) == {"fr", "en", "code", "parallel"}
    assert fertility["text"]["fr"]["documents"] == 5
    assert fertility["tokenizers"][0]["name"] == "fournil"
    assert 1 < fertility["tokenizers"][0]["streams"]["fr"]["tokens_per_word"] < 3
    pages = clean.folder.read_table("corpus/heldout/pages-0.parquet").to_pylist()
    tokenizer = load_tokenizer(contexts[0].out)
    tokens, size = (
        [sum(count(row[side]) for row in pages) for side in ("text", "translation")]
        for count in (lambda text: len(encode_text(tokenizer, text)), lambda text: len(text.encode()))
    )
    assert fertility["tokenizers"][0]["premium"] == {"fr/en": round(tokens[0] / tokens[1], 4)}
    assert fertility["premium_of_bytes"] == {"fr/en": round(size[0] / size[1], 4)}
    finished = contexts[0].out.read_bytes("tokenizer.json")
    contexts[0].out.delete("receipts/fertility")
    assert stage.run(contexts[0]) == metrics[0]
    assert contexts[0].out.read_bytes("tokenizer.json") == finished


@pytest.mark.usefixtures("ray_session")
def test_no_text_of_the_named_streams(storage, stage_context, finish):
    clean = write_clean(storage, bilingual(3), [])
    mixing = stage_context("mix", MixConfig(), clean=clean)
    mixed = finish(mixing, mix.run(mixing))
    with pytest.raises(WorkError, match=r"tokenizer\.shares"):
        stage.run(stage_context("tokenizer", TokenizerConfig(shares={"de": 1.0}), clean=clean, mix=mixed))
