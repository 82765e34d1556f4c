"""Which files of the repository make the site; what is in the reference is not decided here."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[2]
# Pages, and what they link to. The records in docs/reports are for a program that reads them.
PATTERNS = (
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "docker-compose.yml",
    "docs/*.md",
    "docs/*.ipynb",
    "docs/*.yaml",
    "docs/spec.schema.json",
    "docs/json.schema.json",
    "docs/deploy/*",
    "docs/images/*",
    "docs/reports/*.png",
    "docs/website/*.css",
)


class Notebook(File):
    """A page that is a notebook: shown as it was saved, not executed."""

    def is_documentation_page(self) -> bool:
        """Let MkDocs render it."""
        return True


@event_priority(100)  # before the plugins that read pages
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Give every file the place that it has in the repository: links work here and there."""
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    place = (str(ROOT), config.site_dir, config.use_directory_urls)
    for path in sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        if path.suffix != ".ipynb":
            files.append(File(name, *place))
            continue
        beside = {"unique_key": path.stem, "output_files_dir": f"{path.stem}_files"}
        text, resources = MarkdownExporter().from_filename(str(path), resources=beside)
        page = Notebook(name, *place)
        page.content_string = text
        files.append(page)
        for picture, content in resources["outputs"].items():
            place_of_picture = f"{path.parent.relative_to(ROOT).as_posix()}/{picture}"
            files.append(File.generated(config, place_of_picture, content=content))
    return files
