"""Checks that speak to the learner: silent about how, plain about what is wrong.

`check_x(my_x)` prints one line when the answer is right. Otherwise it raises AssertionError, whose text names
the mistake. tests/wrong_answers holds answers that each check must refuse, and the words it must use.
"""

from course_lib.checks.blocks import check_block_parameters, check_receptive_field, check_vgg_block
from course_lib.checks.compare import check_deepest, check_holm, check_paired_interval, check_resampled_means
from course_lib.checks.machinery import expect
from course_lib.checks.masks import check_count_mistakes, check_to_mask
from course_lib.checks.nested import check_nested_unet, check_skips
from course_lib.checks.pruning import check_choose_level, check_prune
from course_lib.checks.relatives import check_at_row, check_gate
from course_lib.checks.resolution import check_encoder_decoder, check_upsample_row
from course_lib.checks.scores import check_dice, check_iou, check_pooled_iou
from course_lib.checks.speed import check_fold, check_median_seconds
from course_lib.checks.supervision import check_accurate_mode, check_deep_supervision_loss
from course_lib.checks.training import check_training_step
from course_lib.checks.unet import check_unet
from course_lib.checks.whole_images import check_average_precision, check_blend

__all__ = [
    "check_accurate_mode",
    "check_at_row",
    "check_average_precision",
    "check_blend",
    "check_block_parameters",
    "check_choose_level",
    "check_count_mistakes",
    "check_deep_supervision_loss",
    "check_deepest",
    "check_dice",
    "check_encoder_decoder",
    "check_fold",
    "check_gate",
    "check_holm",
    "check_iou",
    "check_median_seconds",
    "check_nested_unet",
    "check_paired_interval",
    "check_pooled_iou",
    "check_prune",
    "check_receptive_field",
    "check_resampled_means",
    "check_skips",
    "check_to_mask",
    "check_training_step",
    "check_unet",
    "check_upsample_row",
    "check_vgg_block",
    "expect",
]
