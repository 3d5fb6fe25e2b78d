from course_lib.checks import check_training_step
from course_lib.losses import bce_dice, lovasz_hinge

CHECK, LESSON, EXERCISE = check_training_step, "04_unet", "train_step"


def forgets_zero_grad(net, optimiser, images, masks):
    loss = bce_dice(net(images), masks)
    loss.backward()
    optimiser.step()
    return loss.item()


def forgets_backward(net, optimiser, images, masks):
    loss = bce_dice(net(images), masks)
    optimiser.zero_grad()
    optimiser.step()
    return loss.item()


def forgets_step(net, optimiser, images, masks):
    loss = bce_dice(net(images), masks)
    optimiser.zero_grad()
    loss.backward()
    return loss.item()


def zero_grad_after_backward(net, optimiser, images, masks):
    loss = bce_dice(net(images), masks)
    loss.backward()
    optimiser.zero_grad()
    optimiser.step()
    return loss.item()


def steps_before_backward(net, optimiser, images, masks):
    loss = bce_dice(net(images), masks)
    optimiser.step()
    optimiser.zero_grad()
    loss.backward()
    return loss.item()


def sigmoid_twice(net, optimiser, images, masks):
    loss = bce_dice(net(images).sigmoid(), masks)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def returns_the_graph(net, optimiser, images, masks):
    loss = bce_dice(net(images), masks)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss


def returns_nothing(net, optimiser, images, masks):
    loss = bce_dice(net(images), masks)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def another_loss(net, optimiser, images, masks):
    loss = lovasz_hinge(net(images), masks)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def loss_after_the_step(net, optimiser, images, masks):
    optimiser.zero_grad()
    bce_dice(net(images), masks).backward()
    optimiser.step()
    return bce_dice(net(images), masks).item()


def in_evaluation_mode(net, optimiser, images, masks):
    net.eval()
    loss = bce_dice(net(images), masks)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def swapped_arguments(net, optimiser, images, masks):
    loss = bce_dice(masks, net(images))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def of_the_mask(net, optimiser, images, masks):
    loss = bce_dice((net(images) > 0).float(), masks)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def detached_tensor(net, optimiser, images, masks):
    loss = bce_dice(net(images), masks)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.detach()


def uphill(net, optimiser, images, masks):
    loss = -bce_dice(net(images), masks)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


WRONG = {
    "evaluation mode, where batch norm does not learn": in_evaluation_mode,
    "takes the logits first, then the masks": swapped_arguments,
    "no path back to the weights": of_the_mask,
    "a tensor comes back": detached_tensor,
    "minimise bce_dice, not its negative": uphill,
    "gradients of earlier steps add up: call optimiser.zero_grad": forgets_zero_grad,
    "weights did not change in three steps: .*loss.backward": forgets_backward,
    r"weights did not change in three steps.*optimiser.step\(\)": forgets_step,
    "weights did not change": zero_grad_after_backward,
    r"weights change before loss.backward\(\) has used them": steps_before_backward,
    "takes logits and applies the sigmoid itself": sigmoid_twice,
    "still holds the whole graph.*item": returns_the_graph,
    "returns nothing: return the loss": returns_nothing,
    "weights differ from those of forward, loss, zero_grad, backward, step": another_loss,
    "the weights are right, but the losses": loss_after_the_step,
}
