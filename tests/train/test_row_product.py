import pytest
import torch
import torch.nn.functional as F

from train.row_product import row_product
from train.threads import threads_for

DIM = 4096


@pytest.mark.parametrize("num_outputs", [1, 3])
@pytest.mark.parametrize("num_rows", [1, 256, 777])  # a part of the cache's size holds 256
def test_values_and_gradients_are_those_of_autograd(num_rows, num_outputs):
    x, weight, bias, by_out = some_numbers(num_rows, num_outputs)
    found = derived(row_product, x, weight, bias, by_out)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 5e-6)):
        typed = [value.to(dtype) for value in (x, weight, bias, by_out)]
        for mine, theirs in zip(found, derived(F.linear, *typed), strict=True):
            assert mine.dtype == torch.float32
            assert mine.shape == theirs.shape
            assert (mine - theirs).norm() <= tolerance * theirs.norm()


def some_numbers(num_rows: int, num_outputs: int) -> tuple[torch.Tensor, ...]:
    """Rows, weight, bias, and derivatives by what they give."""
    generator = torch.Generator().manual_seed(num_rows)
    return (
        (3 + torch.randn(num_rows, DIM, generator=generator)).bfloat16(),
        torch.randn(num_outputs, DIM, generator=generator) / 64,
        torch.randn(num_outputs, generator=generator),
        torch.randn(num_rows, num_outputs, generator=generator),
    )


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


def test_rows_of_sequences_are_rows():
    x, weight, bias, by_out = some_numbers(600, 1)
    flat = derived(row_product, x, weight, bias, by_out)
    shaped = derived(row_product, x.view(3, 200, DIM), weight, bias, by_out.view(3, 200, 1))
    assert shaped[0].shape == (3, 200, 1)
    for mine, theirs in zip(shaped, flat, strict=True):
        assert torch.equal(mine.view(theirs.shape), theirs)


@pytest.mark.usefixtures("two_threads")
def test_one_output_is_the_same_whatever_the_threads_which_stay_as_they_were():
    x, weight, bias, by_out = some_numbers(1100, 1)
    with threads_for(1):
        of_two = derived(row_product, x, weight, bias, by_out)
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), threads_for(1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    of_one = derived(row_product, x, weight, bias, by_out)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(of_two, of_one, strict=True))


@pytest.mark.usefixtures("two_threads")
def test_threads_share_many_outputs_and_repeat_the_same_bits():
    x, weight, bias, by_out = some_numbers(600, 16)
    with threads_for(16):
        assert torch.get_num_threads() == 2
        first, again = (derived(row_product, x, weight, bias, by_out) for _ in range(2))
    exact = derived(F.linear, *(value.double() for value in (x, weight, bias, by_out)))
    for mine, same, theirs in zip(first, again, exact, strict=True):
        assert torch.equal(mine, same)
        assert (mine - theirs).norm() <= 5e-6 * theirs.norm()
