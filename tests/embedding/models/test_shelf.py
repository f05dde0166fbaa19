from plug_sklearn.embedding.models._shelf import Shelf


def test_what_was_asked_for_longest_ago_is_let_go() -> None:
    shelf = Shelf(size=2)
    loads: list[str] = []
    for key in ("a", "b", "a", "c", "a", "b"):
        assert shelf.take(key, lambda key=key: loads.append(key) or key) == key
    assert loads == ["a", "b", "c", "b"]
