"""One RFAD step as a plain PyTorch program, for comparison."""

import torch
from torch.nn import functional


def make_step(
    x,
    labels,
    x_s,
    y_s,
    *,
    width,
    networks,
    rate,
    regularizer,
    bias_std,
    device="cpu",
    precision="float32",
    compiled=False,
):
    """Returns a function that takes a step and returns its loss.

    Args:
      x: Real clips ``[b, f, t, 1]``.
      labels: Labels ``[b]`` of the clips.
      x_s: Coreset ``[s, f, t, 1]``.
      y_s: Labels ``[s, c]`` of the coreset.
      networks: Number of networks per step.
      rate: Learning rate.
      regularizer: Regulariser of the kernel regression, relative to the mean diagonal.
      precision: Precision of the networks: float32, tf32 or bfloat16.
      compiled: Compile the networks with ``torch.compile``.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.set_default_device(device)
    b, c = len(x), y_s.shape[1]
    nchw = lambda a: torch.tensor(a.transpose(0, 3, 1, 2).copy())
    data, images = nchw(x), nchw(x_s).requires_grad_()
    y_data = functional.one_hot(torch.tensor(labels).long(), c) - 1 / c
    y = torch.tensor(y_s).requires_grad_()
    moments = [[torch.zeros_like(p), torch.zeros_like(p)] for p in (images, y)]
    count = 0

    def draw():
        layers, channels = [], 1
        for _ in range(3):
            kernel = torch.randn(width, channels, 3, 3)
            std = (2 / (9 * channels)) ** 0.5
            layers.append((std * kernel, bias_std * torch.randn(width)))
            channels = width
        return layers

    def plain(layers, x):
        with torch.autocast(device, torch.bfloat16, precision == "bfloat16"):
            for kernel, bias in layers:
                x = functional.relu(functional.conv2d(x, kernel, bias, padding=1))
                x = functional.avg_pool2d(x, 2)
        return x.flatten(1).float()

    features = torch.compile(plain) if compiled else plain

    def adabelief(param, grad, state):
        mean, spread = state
        mean.mul_(0.9).add_(grad, alpha=0.1)
        spread.mul_(0.999).add_((grad - mean) ** 2 + 1e-16 / 0.001, alpha=0.001)
        m, s = mean / (1 - 0.9**count), spread / (1 - 0.999**count)
        param.sub_(rate * m / (s.sqrt() + 1e-16))

    def step():
        nonlocal count
        count += 1
        order = torch.randperm(b)
        x_b, y_b = data[order], y_data[order]
        drawn = [draw() for _ in range(networks)]
        with torch.no_grad():
            phi_b = torch.cat([features(n, x_b) for n in drawn], 1)
        phi_s = torch.cat([features(n, images) for n in drawn], 1)
        d = phi_s.shape[1]
        k_bs = 2 / d * phi_b @ phi_s.T + bias_std**2
        k_ss = 2 / d * phi_s @ phi_s.T + bias_std**2
        size = k_ss.shape[0]
        ridge = regularizer * torch.trace(k_ss) / size * torch.eye(size)
        predictions = k_bs @ torch.linalg.solve(k_ss + ridge, y)
        loss = 0.5 * ((y_b - predictions) ** 2).mean()
        grads = torch.autograd.grad(loss, (images, y))
        with torch.no_grad():
            for param, grad, state in zip((images, y), grads, moments, strict=True):
                adabelief(param, grad, state)
        return loss.item()

    return step
