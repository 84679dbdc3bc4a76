"""The files of deploy/, read as YAML."""

from pathlib import Path

import yaml


def documents(path: Path) -> list[dict]:
    """All the documents of a YAML file; a key that is there twice is an error."""
    return [document for document in yaml.load_all(path.read_text(), Unique) if document is not None]


class Unique(yaml.SafeLoader):
    """YAML that knows no key twice: the second one would silently win."""


def _mapping(loader: Unique, node: yaml.MappingNode) -> dict:
    keys = [loader.construct_object(key) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    assert len(keys) == len(set(keys)), f"a key twice at {node.start_mark}"
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


Unique.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
