import inspect
from importlib import import_module
from importlib.metadata import version as installed_version
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from docutils import nodes
from sphinx_gallery.directives import imgsgnode
from sphinx_gallery.scrapers import matplotlib_scraper
from sphinx_gallery.utils import scale_image

project = "sk_resnet"
author = "the sk_resnet developers"
version = release = installed_version("sk-resnet")
extensions = [
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
# `EarlyStopping` leads to its page.
default_role = "py:obj"
rst_prolog = ".. currentmodule:: sk_resnet\n"
exclude_patterns = ["_build", "**/README.rst"]
html_theme = "pydata_sphinx_theme"
html_title = "sk_resnet"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_extra_path = ["llms.txt"]
html_logo = html_favicon = "_static/logo.svg"
html_theme_options = {
    "show_prev_next": False,
    # Without a sidebar two programs have room beside each other.
    "secondary_sidebar_items": {
        "**": ["page-toc"],
        "coming_from": [],
        "auto_examples/index": [],
    },
    "logo": {"text": "sk_resnet", "alt_text": ""},
}
# Pages without others below them, and the gallery, which has the titles below thumbnails.
ALONE = ("index", "install", "tutorial", "auto_examples/index", "changes", "contribute")
html_sidebars = {page: [] for page in ALONE}
# What a prompt or a program prints is not copied.
copybutton_exclude = ".linenos, .gp, .go"
autosummary_generate = True
autodoc_typehints = "none"
templates_path = ["_templates"]


def own_methods(fullname):
    """Public methods that this package defines, and `score`; no hooks of callbacks."""
    module, _, name = fullname.rpartition(".")
    members = inspect.getmembers(getattr(import_module(module), name), callable)
    return [
        name
        for name, member in members
        if not name.startswith(("_", "on_"))
        and (getattr(member, "__module__", "").startswith("sk_resnet") or name == "score")
    ]


autosummary_context = {"own_methods": own_methods}
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False


# Inches of a panel in a thumbnail: in smaller ones letters of 10 points hide the drawing.
PANEL = (4.2, 2.94)


def keep_first_panel(block, variables, conf):
    """Save the figures of an example, and for its thumbnail the first panel of the first.

    Or the first panel of the figure that the example names by its number. The letters of a
    whole figure are too small in a thumbnail, and those of a large panel too. A panel that
    takes little of its figure, such as one image of many, says too little.
    """
    paths = variables["image_path_iterator"]
    number = variables["file_conf"].get("thumbnail_number", 1)
    if len(paths) == number - 1 and plt.get_fignums():
        figure = plt.figure(plt.get_fignums()[0])
        panel, size = first_panel(figure), figure.get_size_inches()
        if panel.width > 0.3 * size[0]:
            shrunk = np.minimum(1, np.divide(PANEL, (panel.width, panel.height)))
            figure.set_size_inches(size * shrunk)
            path = paths.image_path.replace("_{0:03}", "_panel")
            figure.savefig(path, bbox_inches=first_panel(figure), dpi=150)
            figure.set_size_inches(size)
    return matplotlib_scraper(block, variables, conf)


def first_panel(figure):
    """Where the first panel of a figure is, in inches."""
    figure.canvas.draw()
    box = figure.axes[0].get_tightbbox()
    return box.transformed(figure.dpi_scale_trans.inverted()).padded(0.08)


def show_first_panels(app):
    """Replace thumbnails by those of first panels."""
    images = Path(app.srcdir, "auto_examples", "images")
    for panel in images.glob("*_panel.png"):
        name = panel.name.replace("_panel", "_thumb")
        size = sphinx_gallery_conf["thumbnail_size"]
        scale_image(str(panel), str(images / "thumb" / name), *size)


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "plot_",
    "ignore_pattern": "demo|^log_",
    "abort_on_example_error": True,
    "show_memory": False,
    # Twice as wide as they are shown, for screens of many pixels.
    "thumbnail_size": (600, 420),
    "write_computation_times": False,
    "capture_repr": ("_repr_html_",),
    "image_scrapers": (keep_first_panel,),
    "remove_config_comments": True,
}
suppress_warnings = ["config.cache"]


def let_figures_scroll(app, doctree, docname):
    """Put each figure of an example into a box, in which it scrolls on a phone."""
    for figure in list(doctree.findall(imgsgnode)):
        box = nodes.container(classes=["figure-scroll"])
        figure.replace_self(box)
        box += figure


def setup(app):
    app.connect("builder-inited", show_first_panels, priority=900)  # behind the gallery
    app.connect("doctree-resolved", let_figures_scroll)
