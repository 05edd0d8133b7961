from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.storage import Folder
from evaluation.sample import Sampled, sample_documents, smallest_ids
from tests.clean_corpus import document, write_clean


def sampled(number: int, size: int) -> Sampled:
    return Sampled(f"{number:08x}", "s", "p", "fr", "x" * size, None, size)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 40)), unique_by=lambda item: item[0]), st.integers(1, 400))
def test_smallest_ids_is_a_prefix_of_the_sorted_documents(items: list[tuple[int, int]], max_bytes: int) -> None:
    documents = [sampled(*item) for item in items]
    ordered = sorted(documents, key=lambda one: one.id)
    found = smallest_ids(iter(documents), max_bytes)
    assert found == ordered[: len(found)]
    assert sum(one.size for one in found[:-1]) < max_bytes
    assert len(found) == len(ordered) or sum(one.size for one in found) >= max_bytes


def test_streams_are_told_apart(storage: Folder) -> None:
    rows = [
        document("livre", "fr", "Le pain est prêt."),
        document("book", "en", "The bread is ready."),
        document("programs", "code", "print('bread')"),
        document("pages", "fr", "Le four est chaud.", "The oven is hot."),
    ]
    folder = write_clean(storage, rows, []).folder / "corpus/train"
    found = {stream: [one.text for one in sample_documents(folder, stream, 1_000)] for stream in ("fr", "en", "code", "parallel")}
    assert found == {
        "fr": ["Le pain est prêt."],
        "en": ["The bread is ready."],
        "code": ["print('bread')"],
        "parallel": ["Le four est chaud."],
    }
    (pair,) = sample_documents(folder, "parallel", 1_000)
    assert (pair.translation, pair.size) == ("The oven is hot.", 18 + 16)


def test_the_smaller_sample_begins_the_larger(storage: Folder) -> None:
    rows = [document(f"livre-{n % 3}", "fr", f"Le pain numéro {n} est prêt.") for n in range(60)]
    folder = write_clean(storage, rows, []).folder / "corpus/train"
    small, large = sample_documents(folder, "fr", 200), sample_documents(folder, "fr", 10_000)
    assert 0 < len(small) < len(large) == 60
    assert large[: len(small)] == small
