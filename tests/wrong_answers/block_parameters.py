from course_lib.checks import check_block_parameters
from course_lib.grid import VGGBlock

CHECK, LESSON, EXERCISE = check_block_parameters, "02_vgg_block", "block_parameters"


def right(c_in, c_out):
    return sum(p.numel() for p in VGGBlock(c_in, c_out).parameters())


def without_biases(c_in, c_out):
    return right(c_in, c_out) - 2 * c_out


def without_norms(c_in, c_out):
    return right(c_in, c_out) - 4 * c_out


def kernels_alone(c_in, c_out):
    return 9 * c_out * (c_in + c_out)


def running_statistics_too(c_in, c_out):
    return sum(b.numel() for b in VGGBlock(c_in, c_out).buffers() if b.ndim) + right(c_in, c_out)


def whole_state_dict(c_in, c_out):
    return sum(value.numel() for value in VGGBlock(c_in, c_out).state_dict().values())


def half_a_block(c_in, c_out):
    return c_out * (9 * c_in + 1) + 2 * c_out


def one_convolution(c_in, c_out):
    return c_out * (9 * c_in + 1)


def both_from_c_in(c_in, c_out):
    return 2 * (c_out * (9 * c_in + 1) + 2 * c_out)


def swapped(c_in, c_out):
    return right(c_out, c_in)


def three_numbers_a_kernel(c_in, c_out):
    return 3 * c_out * (c_in + c_out) + 6 * c_out


def one_number_a_kernel(c_in, c_out):
    return c_out * (c_in + c_out) + 6 * c_out


def one_kernel_a_convolution(c_in, c_out):
    return 9 * c_in + 1 + 9 * c_out + 1 + 4 * c_out


def widens_late(c_in, c_out):
    return c_in * (9 * c_in + 1) + 2 * c_in + c_out * (9 * c_in + 1) + 2 * c_out


def biases_of_the_input(c_in, c_out):
    return right(c_in, c_out) - c_out + c_in


def one_bias_a_convolution(c_in, c_out):
    return kernels_alone(c_in, c_out) + 2 + 4 * c_out


def norm_of_the_input(c_in, c_out):
    return right(c_in, c_out) - 2 * c_out + 2 * c_in


def a_head_too(c_in, c_out):
    return right(c_in, c_out) + c_out + 1


def a_pair(c_in, c_out):
    return c_out * (9 * c_in + 1), c_out * (9 * c_out + 1)


def in_thousands(c_in, c_out):
    return right(c_in, c_out) / 1000


def returns_nothing(c_in, c_out):
    right(c_in, c_out)


def hole(c_in, c_out):
    raise NotImplementedError("your code here")


WRONG = {
    "short of two numbers an output channel: .* biases": without_biases,
    "the norms are missing": without_norms,
    "biases and norms are missing": kernels_alone,
    "running means and variances are counted too: .* nobody trains": running_statistics_too,
    "everything in the state dict is counted": whole_state_dict,
    "this is half a block": half_a_block,
    "this is one convolution": one_convolution,
    "both convolutions are counted with c_in input channels": both_from_c_in,
    "c_in and c_out are swapped": swapped,
    "nine numbers an input channel, not three": three_numbers_a_kernel,
    "a kernel is counted as one number": one_number_a_kernel,
    "one kernel a convolution is counted": one_kernel_a_convolution,
    "goes to c_out channels at once": widens_late,
    "one bias an output channel, not one an input channel": biases_of_the_input,
    "one bias a convolution is counted": one_bias_a_convolution,
    "the first norm stands behind a convolution": norm_of_the_input,
    r"from 3 to 5 channels holds 390 trained numbers, not 396: 140 and 230": a_head_too,
    "one number is wanted, .* this is tuple": a_pair,
    "is a whole number": in_thousands,
    "nothing comes back": returns_nothing,
    "hole is not written yet": hole,
}
