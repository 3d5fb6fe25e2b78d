"""Work on a checkout of the course, from its folder: python -m tools.FOLDER.NAME. Nothing of it is in the package.

run: execute lessons, as they are here and with Colab's versions; the day before a workshop.
notebooks: both editions of a lesson from its source, and the rules they keep.
publish: the site, slides, the bundle for a room without a network, the picture of the README.
numbers: tables of README, teacher's guide and own data, each as measured.
"""
