"""docs/ros.md names what the nodes really have."""

import re
from pathlib import Path

import pytest

from instseg_ros.config import BagPlayerConfig, FusionNodeConfig, SegmenterNodeConfig
from instseg_ros.ros.parameters import parameter_table

PAGE = Path(__file__).parents[2] / "docs" / "ros.md"


@pytest.mark.parametrize(("config", "page"), [(SegmenterNodeConfig, PAGE), (FusionNodeConfig, PAGE), (BagPlayerConfig, PAGE.with_name("replay.md"))])
def test_the_parameter_tables_are_current(config, page):
    found = re.search(rf"<!-- parameters: {config.__name__} -->\n(.*?)\n?<!-- end -->", page.read_text(), re.DOTALL)
    assert found and found[1] == parameter_table(config), f"put this table into docs/{page.name}:\n{parameter_table(config)}"


@pytest.mark.parametrize("kind", ["segmenter", "fusion"])
def test_topics_and_services_are_documented(bench, kind):
    node = getattr(bench, kind)()
    names = {publisher.topic_name for publisher in node.publishers} | {s.topic_name for s in node.subscriptions}
    names |= {service.srv_name for service in node.services}
    ours = {n for n in names if "parameter" not in n and not n.endswith(("/rosout", "/get_type_description")) and n != "/clock"}
    page = PAGE.read_text()
    for name in ours:
        written = name.replace(f"/{kind}/", "~/") if f"/{kind}/" in name else name
        assert f"`{written}`" in page or f"`{written.lstrip('/')}`" in page, f"{name} is not in docs/ros.md"
