from course_lib.checks import check_receptive_field

CHECK, LESSON, EXERCISE = check_receptive_field, "02_vgg_block", "receptive_field"


def right(layers):
    side, step = 1, 1
    for kernel, stride in layers:
        side, step = side + (kernel - 1) * step, step * stride
    return side


def ignores_strides(layers):
    return 1 + sum(kernel - 1 for kernel, _ in layers)


def stride_too_early(layers):
    side, step = 1, 1
    for kernel, stride in layers:
        step *= stride
        side += (kernel - 1) * step
    return side


def starts_at_zero(layers):
    return right(layers) - 1


def whole_kernels(layers):
    side, step = 1, 1
    for kernel, stride in layers:
        side, step = side + kernel * step, step * stride
    return side


def sum_of_kernels(layers):
    side, step = 0, 1
    for kernel, stride in layers:
        side, step = side + kernel * step, step * stride
    return side


def from_the_wrong_end(layers):
    """The recurrence for the way back, on layers in the order of the way in."""
    side = 1
    for kernel, stride in layers:
        side = (side - 1) * stride + kernel
    return side


def forgets_strides(layers):
    side, step = 1, 1
    for kernel, stride in layers:
        side, step = side + (kernel - 1) * step, stride
    return side


def adds_strides(layers):
    side, step = 1, 1
    for kernel, stride in layers:
        side, step = side + (kernel - 1) * step, step + stride
    return side


def adds_strides_less_one(layers):
    side, step = 1, 1
    for kernel, stride in layers:
        side, step = side + (kernel - 1) * step, step + stride - 1
    return side


def own_stride(layers):
    return 1 + sum((kernel - 1) * stride for kernel, stride in layers)


def all_kernels_three(layers):
    return right([(3, stride) for _, stride in layers])


def convolutions_only(layers):
    return 1 + sum(kernel - 1 for kernel, _ in layers if kernel != 2)


def strides_of_poolings_only(layers):
    return right([(kernel, 2 if kernel == 2 else 1) for kernel, _ in layers])


def to_one_side(layers):
    return (right(layers) - 1) // 2


def pixels(layers):
    return right(layers) ** 2


def product(layers):
    side = 1
    for kernel, _ in layers:
        side *= kernel
    return side


def scales_what_was_seen(layers):
    side = 1
    for kernel, stride in layers:
        side = (side + kernel - 1) * stride
    return side


def half_of_it(layers):
    return right(layers) / 2


def height_and_width(layers):
    return right(layers), right(layers)


def eats_the_list(layers):
    side = 1
    while layers:
        kernel, stride = layers.pop()
        side = (side - 1) * stride + kernel
    return side


def every_second_layer(layers):
    return right(layers[::2])


def nothing_for_no_layers(layers):
    return right(layers) if layers else 0


def returns_nothing(layers):
    right(layers)


def hole(layers):
    raise NotImplementedError("your code here")


WRONG = {
    "the strides are ignored": ignores_strides,
    "already acts on its own layer": stride_too_early,
    "one pixel is missing": starts_at_zero,
    "each layer adds its whole kernel": whole_kernels,
    "kernels are added up whole": sum_of_kernels,
    "walked from the wrong end": from_the_wrong_end,
    "a stride acts on the next layer only": forgets_strides,
    "strides are added: the steps": adds_strides,
    r"strides are added \(s - 1 each\)": adds_strides_less_one,
    "widened by its own stride": own_stride,
    "every kernel is taken for 3": all_kernels_three,
    "pooling is left out": convolutions_only,
    "only 2x2 layers are taken to have a stride": strides_of_poolings_only,
    "how far it sees to one side": to_one_side,
    "the number of pixels in the square": pixels,
    "kernels are multiplied": product,
    "what was seen before is multiplied": scales_what_was_seen,
    "is a whole number": half_of_it,
    "one number is wanted, .* this is tuple": height_and_width,
    "the list of layers is changed": eats_the_list,
    r"layers \[\(3, 1\), \(3, 1\)\] see 5 pixels a side, not 3": every_second_layer,
    "no layers give 1, not 0": nothing_for_no_layers,
    "nothing comes back": returns_nothing,
    "hole is not written yet": hole,
}
