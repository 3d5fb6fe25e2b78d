# %% [markdown]
# # Does the sample lesson work?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({{COLAB}})

# %% tags=["setup", "nbval-ignore-output"]
# {{SETUP}}

# %%
import os
import time

import matplotlib.pyplot as plt
from IPython.display import display
from ipywidgets import IntSlider

# %% tags=["parameters"]
PRESET = "auto"
SEED = 0

# %% tags=["nbval-check-output"]
print(2 + 2)

# %%
print(os.environ["COURSE_PRESET"], os.environ.get("COURSE_BBBC038_ARCHIVE"))
figure, axes = plt.subplots(figsize=(2, 1))
axes.plot([1, 2, 4])
plt.close(figure)
display(figure, metadata={"image/png": {"alt": "a rising line"}})

# %%
IntSlider(value=3)

# %% tags=["timing"]
print(time.perf_counter())


# %% tags=["exercise"]
def double(x):
    """Twice x."""
    ### BEGIN SOLUTION
    twice = x + x
    return twice
    ### END SOLUTION


# %%
def check_double(answer):
    assert answer(3) == 6, "double(3) is 6"


check_double(double)


# %% tags=["exercise"]
def triple(x):
    result = None
    if x is not None:
        ### BEGIN SOLUTION
        result = double(x) + x
        ### END SOLUTION
    return result


# %%
def check_triple(answer):
    assert answer(2) == 6, "triple(2) is 6"


check_triple(triple)

# %% tags=["solution-only"]
print("for those who have the solutions")

# %% [markdown]
# ## What we found
# ## One honest limit
# ## The next question
