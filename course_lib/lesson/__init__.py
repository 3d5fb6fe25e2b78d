"""What do the first cells of a lesson need? How large everything is on this machine (`presets`), what a learner on
Colab is told and where trainings are kept (`colab`), and a file of the answers that a learner gave (`progress`)."""

from course_lib.lesson.colab import kept as kept
