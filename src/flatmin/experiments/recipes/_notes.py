"""Notes that several recipes have."""

#: For every recipe that compares SAM and SGD.
EQUAL_COST = (
    "Cells without SAM are trained for the epochs of SAM and for twice as many, and "
    "the better mean is reported: the paper's rule, since a step of SAM takes two "
    "gradients."
)
SGD = (
    "The paper names SGD with momentum 0.9 for ImageNet and for fine-tuning. The SAM "
    "code uses Nesterov's momentum and clips the gradient's norm at 5.0 by default. "
    "Here: the paper's everywhere; for the code's, set nesterov=true clip=5."
)
DECAY = (
    "The paper's eq. 1 keeps weight decay outside of the maximum; in the SAM code it "
    "is part of the loss and so of the perturbation. Here: the paper's; for the "
    'code\'s, set method_options={"decay_in_ascent": true}.'
)
DEVICES = (
    "In the paper each accelerator perturbs by its own examples: 256 on 8 make "
    "m = 32, a number that it does not print. SGD's BatchNorm has the same groups "
    "here. m=256 is a different experiment; a footnote of the paper says that SAM "
    "gains when accelerators do not share perturbations."
)

#: For recipes on CIFAR, SVHN and Fashion-MNIST.
COMMON = (EQUAL_COST, SGD, DECAY, DEVICES)

SHAKE_SHAKE = (
    'Shake-Shake is "26 2x96d" in Table 1, "WRN 26-2x6" in Tables 6 and 9, and '
    "WideResnet28x6_ShakeShake in the SAM code. They are one network: 96 = 6 * 16."
)
PYRAMIDNET = (
    "The paper does not say which PyramidNet. Here: 272 layers and alpha 200, as in "
    "the SAM code, which rounds channels to the nearest number (26.21 M parameters) "
    "where the paper of PyramidNet rounds down (26.05 M). Here: down; for the code's, "
    'set model_options={"rounded": true}.'
)
EPOCHS = (
    "The paper does not give the epochs of Shake-Shake and PyramidNet, only that they "
    "are those of earlier work. Here: 1800, those of AutoAugment "
    "(arXiv:1805.09501) for Shake-Shake and for PyramidNet with ShakeDrop. The paper "
    "of PyramidNet has 300."
)
CUTOUT = (
    'The paper\'s "AA" is AutoAugment, flip, crop and cutout for CIFAR. Cutout is '
    "drawn for each image; in the SAM code, one square for a whole batch."
)
NOISE = (
    "The paper follows Jiang et al. with label noise and does not give learning rate, "
    "weight decay or augmentation. Here: learning rate 0.1 and weight "
    "decay 0.0002 of Jiang et al. (arXiv:1911.09781), and batch size 256 and flip and "
    "crop of the paper's other experiments on CIFAR."
)
NOISE_KIND = (
    "The paper does not say whether a noisy label can be the right one. Here: it can, "
    "as in MentorNet (arXiv:1712.05055), which draws the class uniformly; at 80 % "
    "noise 28 % of the labels are then right, near the 26.2 % accuracy that the paper "
    "prints for SGD. For the other kind, set true_class=false."
)
