import pytest
import torch
import torch.nn.functional as F

from train.row_product import row_product

DIM = 4096


@pytest.mark.parametrize("num_outputs", [1, 3])
@pytest.mark.parametrize("num_rows", [1, 256, 777])  # a part of the cache's size holds 256
def test_values_and_gradients_are_those_of_autograd(num_rows, num_outputs):
    generator = torch.Generator().manual_seed(num_rows)
    x = (3 + torch.randn(num_rows, DIM, generator=generator)).bfloat16()
    weight = torch.randn(num_outputs, DIM, generator=generator) / 64
    bias = torch.randn(num_outputs, generator=generator)
    by_out = torch.randn(num_rows, num_outputs, generator=generator)
    found = derived(row_product, x, weight, bias, by_out)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 5e-6)):
        typed = [value.to(dtype) for value in (x, weight, bias, by_out)]
        for mine, theirs in zip(found, derived(F.linear, *typed), strict=True):
            assert mine.dtype == torch.float32
            assert mine.shape == theirs.shape
            assert (mine - theirs).norm() <= tolerance * theirs.norm()


def derived(product, x, weight, bias, by_out) -> tuple[torch.Tensor, ...]:
    """Values, and their derivatives by weight and bias."""
    weight, bias = (value.clone().requires_grad_() for value in (weight, bias))
    out = product(x, weight, bias)
    out.backward(by_out)
    return out.detach(), weight.grad, bias.grad


def test_a_row_has_the_same_product_with_and_without_a_gradient():
    x = torch.randn(300, DIM).bfloat16()
    weight, bias = torch.randn(1, DIM).requires_grad_(), torch.zeros(1)
    with torch.inference_mode():
        scored = row_product(x, weight, bias)
    assert torch.equal(row_product(x, weight, bias), scored)


@pytest.mark.usefixtures("two_threads")
def test_threads_share_the_rows_and_repeat_the_same_bits():
    x = torch.randn(1100, DIM).bfloat16()
    weight, bias = torch.randn(1, DIM).requires_grad_(), torch.zeros(1)
    gradients = []
    for _ in range(3):
        weight.grad = None
        row_product(x, weight, bias).square().mean().backward()
        gradients.append(weight.grad)
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])
