"""What stands in a page: its tags, texts and pictures."""

import base64
import io
from html.parser import HTMLParser

from PIL import Image


class Page(HTMLParser):
    """Collects tags, texts and attributes, and checks that tags close in order."""

    VOID = frozenset({"meta", "img", "source", "br"})

    def __init__(self, source: str):
        super().__init__()
        self.tags, self.texts, self.stack = [], [], []
        self.feed(source)
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if data.strip() and (not self.stack or self.stack[-1] != "style"):
            self.texts.append(data.strip())

    @property
    def text(self) -> str:
        return "\n".join(self.texts)

    def after(self, first: str, count: int) -> list[str]:
        """The `count` texts after the last one that is `first`: the cells of a row."""
        place = len(self.texts) - self.texts[::-1].index(first)
        return self.texts[place : place + count]

    def pictures(self) -> dict[str, Image.Image]:
        """alt -> decoded picture of every <img>."""
        images = [attrs for tag, attrs in self.tags if tag == "img"]
        data = {a["alt"]: base64.b64decode(a["src"].split(",", 1)[1]) for a in images}
        return {alt: Image.open(io.BytesIO(d)).convert("RGB") for alt, d in data.items()}
