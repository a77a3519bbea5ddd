"""Documents that clients ask the gateway to keep."""

from pathlib import Path

from ripieno.ledger import Ledger
from ripieno.ledger.documents import KEPT_S, PRUNED_EVERY_S
from ripieno.testing import FixedClock


def test_a_document_is_its_owners_until_it_is_deleted_or_old(tmp_path: Path) -> None:
    clock = FixedClock()
    with Ledger(f"sqlite:///{tmp_path}/ledger.db", clock=clock) as ledger:
        documents = ledger.documents
        documents.put("one", "resp_1", {"text": "a"})
        documents.put("one", "resp_1", {"text": "b"})
        documents.put("", "resp_1", {"text": "c"})
        assert documents.find("one", "resp_1") == ("one", {"text": "b"})
        assert documents.find("", "resp_1") == ("", {"text": "c"})
        assert documents.find("two", "resp_1") is None
        assert not documents.delete("two", "resp_1")
        assert documents.delete("", "resp_1")
        assert documents.find("", "resp_1") is None
        assert documents.find(None, "resp_1") == ("one", {"text": "b"}), "who may read all finds it"
        clock.advance(KEPT_S + PRUNED_EVERY_S)
        assert documents.find("one", "resp_1") is None, "it is too old, though not yet removed"
        documents.put("one", "resp_2", {})
        assert not documents.delete("one", "resp_1"), "writing removes what is too old"
        assert documents.find("one", "resp_2") == ("one", {})
