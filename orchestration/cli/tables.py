"""Tables and texts for a terminal or a pipe, without the spaces with which rich pads each line."""

from rich.console import Console, RenderableType
from rich.text import Text


def print_trimmed(console: Console, content: RenderableType, *, width: int | None = None) -> None:
    """Print the content at most `width` columns wide, and never wider than the console."""
    options = console.options.update(width=min(width or console.width, console.width))
    for segments in console.render_lines(content, options, pad=False):
        line = Text.assemble(*((segment.text, segment.style or "") for segment in segments))
        line.rstrip()
        console.print(line, soft_wrap=True)
