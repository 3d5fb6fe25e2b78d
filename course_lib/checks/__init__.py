# ruff: noqa: F401
"""Is my answer right? `check_x(my_x)` prints one line, or raises AssertionError whose text names the mistake.
tests/wrong_answers holds answers that each check must refuse, and the words it must use.
"""

from course_lib.checks.blocks import check_block_parameters, check_receptive_field, check_vgg_block
from course_lib.checks.heads import check_accurate_mode, check_choose_level, check_deep_supervision_loss, check_prune
from course_lib.checks.machinery import expect
from course_lib.checks.measuring import (
    check_deepest,
    check_holm,
    check_median_seconds,
    check_paired_interval,
    check_resampled_means,
)
from course_lib.checks.pieces import check_at_row, check_average_precision, check_blend, check_fold, check_gate
from course_lib.checks.resolution import check_encoder_decoder, check_upsample_row
from course_lib.checks.scores import check_count_mistakes, check_dice, check_iou, check_pooled_iou, check_to_mask
from course_lib.checks.unets import check_nested_unet, check_skips, check_training_step, check_unet
