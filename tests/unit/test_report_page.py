"""The page: one file, nothing from outside, nothing of a name is run; seen by a real browser."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from nemesis.commands import report
from tests.helpers.report_runs import a_run, write

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(not BROWSER, reason="no chromium is installed here")
EVIL = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">&$x_1$"
VOID = {"meta", "img", "br", "hr", "input", "link"}


class Reader(HTMLParser):
    """Collects elements and attributes, and checks that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of runs whose dataset and folder are named like elements of HTML."""
    folder = tmp_path_factory.mktemp("page") / "<b onclick=x> 'é'"
    runs = [
        *(a_run(60.0 + seed, dataset=EVIL, seed=seed) for seed in (1, 2)),
        *(a_run(90.0 - seed, "CoOpNemesis", EVIL, seed=seed) for seed in (1, 2)),
        a_run(70.0, "PLOT", EVIL, 4),
        a_run(30.0, "ZeroshotCLIP", EVIL, 0),
    ]
    write(folder / "runs", *runs)
    assert report.main([str(folder / "runs"), "--title", EVIL, "--paper", "3"]) == 0
    return folder / "runs" / "report" / "report.html"


def test_it_is_one_file_and_calls_nothing(page: Path) -> None:
    reader = read(page.read_text(encoding="utf-8"))
    assert not {"link", "img", "iframe", "object", "embed"} & set(reader.tags)
    assert reader.tags.count("script") == 1
    assert not [name for name, _ in reader.attributes if name.startswith("on") or name == "src"]
    targets = [value for name, value in reader.attributes if name.endswith("href")]
    assert targets
    assert all(re.match(r"#|\.\./", target) for target in targets), targets
    assert "url(http" not in page.read_text()
    assert any("default-src 'none'" in value for _, value in reader.attributes)


def test_names_are_text(page: Path) -> None:
    reader = read(page.read_text(encoding="utf-8"))
    assert EVIL in reader.text
    assert "b onclick" not in reader.tags


def test_identifiers_are_unique_and_links_within_lead_somewhere(page: Path) -> None:
    reader = read(page.read_text(encoding="utf-8"))
    ids = [value for name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    inner = {value[1:] for name, value in reader.attributes if name == "href" and value[0] == "#"}
    assert inner <= set(ids)


def test_links_lead_to_the_runs(page: Path) -> None:
    reader = read(page.read_text(encoding="utf-8"))
    folders = [value for name, value in reader.attributes if name == "href" and value[0] == "."]
    assert len(folders) == 6
    assert all((page.parent / unquote(folder) / "results.json").is_file() for folder in folders)


def test_the_papers_numbers_are_labelled(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert '<section id="paper_table_3" class="paper">' in text
    assert '<span class="tag">' in text
    assert "The paper&#39;s Table 3" in text


def browse(path: Path, profile: Path) -> str:
    """What a browser makes of the page, as HTML."""
    assert BROWSER
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    done = subprocess.run(
        [*command, "--dump-dom", path.resolve().as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@needs_browser
def test_a_browser_shows_it_and_runs_no_name(page: Path, tmp_path: Path) -> None:
    dom = browse(page, tmp_path)
    assert "<td" in dom
    assert dom.count('<button type="button">') > 5  # our own script ran
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)
    assert title
    assert title[1] != "run"
    assert "onerror" not in re.sub(r"&lt;.*?&gt;|<title>.*?</title>", "", dom)


@needs_browser
def test_it_reads_without_script_and_runs_none_but_its_own(page: Path, tmp_path: Path) -> None:
    """A script that is not the page's own, to the letter, is refused by the page's policy."""
    text = page.read_text(encoding="utf-8")
    copy = tmp_path / "copy.html"
    copy.write_text(text.replace('"use strict";', '"use strict"; ;'), encoding="utf-8")
    dom = browse(copy, tmp_path / "profile")
    assert "<button" not in dom
    assert "61.5 ± 0.7" in dom


@needs_browser
def test_a_click_sorts(page: Path, tmp_path: Path) -> None:
    """In a copy whose policy lets the test's own script click on a heading."""
    text = re.sub(r"<meta http-equiv.*?>", "", page.read_text(encoding="utf-8"))
    click = "document.querySelectorAll('#few_shot thead button')[1].click();"
    copy = tmp_path / "copy.html"

    def order(clicks: int) -> list[str]:
        script = f"<script>{click * clicks}</script></body>"
        copy.write_text(text.replace("</body>", script), encoding="utf-8")
        dom = browse(copy, tmp_path / "profile")
        body = dom[dom.index('id="few_shot"') : dom.index('id="measures"')]
        return re.findall(r'<td class="text *">([^<]*)</td>', body)

    assert order(0) == ["ZeroshotCLIP", "CoOp", "CoOp+PUN", "PLOT"]
    assert order(1) == ["ZeroshotCLIP", "CoOp", "CoOp+PUN", "PLOT"]  # 30, 61.5, 88.5, none
    assert order(2) == ["CoOp+PUN", "CoOp", "ZeroshotCLIP", "PLOT"]
