"""The paper's tables, typed a second time and in another order than the recipes'."""

#: Network, augmentation, CIFAR-10 with SAM and SGD, CIFAR-100 with SAM and SGD.
TABLE1 = """
wrn-28-10-200        | basic  | 2.7±.1  | 3.5±.1  | 16.5±.2 | 18.8±.2
wrn-28-10-200        | cutout | 2.3±.1  | 2.6±.1  | 14.9±.2 | 16.9±.1
wrn-28-10-200        | aa     | 2.1±<.1 | 2.3±.1  | 13.6±.2 | 15.8±.2
wrn-28-10-1800       | basic  | 2.4±.1  | 3.5±.1  | 16.3±.2 | 19.1±.1
wrn-28-10-1800       | cutout | 2.1±.1  | 2.7±.1  | 14.0±.1 | 17.4±.1
wrn-28-10-1800       | aa     | 1.6±.1  | 2.2±<.1 | 12.8±.2 | 16.1±.2
shake-shake          | basic  | 2.3±<.1 | 2.7±.1  | 15.1±.1 | 17.0±.1
shake-shake          | cutout | 2.0±<.1 | 2.3±.1  | 14.2±.2 | 15.7±.2
shake-shake          | aa     | 1.6±<.1 | 1.9±.1  | 12.8±.1 | 14.1±.2
pyramidnet           | basic  | 2.7±.1  | 4.0±.1  | 14.6±.4 | 19.7±.3
pyramidnet           | cutout | 1.9±.1  | 2.5±.1  | 12.6±.2 | 16.4±.1
pyramidnet           | aa     | 1.6±.1  | 1.9±.1  | 11.6±.1 | 14.6±.1
pyramidnet-shakedrop | basic  | 2.1±.1  | 2.5±.1  | 13.3±.2 | 14.5±.1
pyramidnet-shakedrop | cutout | 1.6±<.1 | 1.9±.1  | 11.3±.1 | 11.8±.2
pyramidnet-shakedrop | aa     | 1.4±<.1 | 1.6±<.1 | 10.3±.1 | 10.6±.1
"""

#: Network, epochs, SAM and SGD: top-1 (top-5).
TABLE2 = """
resnet-50  | 100 | 22.5±.1 (6.28±.08)   | 22.9±.1 (6.62±.11)
resnet-50  | 200 | 21.4±.1 (5.82±.03)   | 22.3±.1 (6.37±.04)
resnet-50  | 400 | 20.9±.1 (5.51±.03)   | 22.3±.1 (6.40±.06)
resnet-101 | 100 | 20.2±.1 (5.12±.03)   | 21.2±.1 (5.66±.05)
resnet-101 | 200 | 19.4±.1 (4.76±.03)   | 20.9±.1 (5.66±.04)
resnet-101 | 400 | 19.0±<.01 (4.65±.05) | 22.3±.1 (6.41±.06)
resnet-152 | 100 | 19.2±<.01 (4.69±.04) | 20.4±<.0 (5.39±.06)
resnet-152 | 200 | 18.5±.1 (4.37±.03)   | 20.3±.2 (5.39±.07)
resnet-152 | 400 | 18.4±<.01 (4.35±.04) | 20.9±<.0 (5.84±.07)
"""

#: Data, b7 with SAM, without, best before, L2 with SAM, without, best before.
TABLE3 = """
aircraft | 6.80±.06  | 8.15±.08  | 5.3  | 4.82±.08  | 5.80±.1   | 5.3
flowers  | .63±.02   | 1.16±.05  | .7   | .35±.01   | .40±.02   | .37
pets     | 3.97±.04  | 4.24±.09  | 4.1  | 2.90±.04  | 3.08±.04  | 4.1
cars     | 5.18±.02  | 5.94±.06  | 5.0  | 4.04±.03  | 4.93±.04  | 3.8
cifar10  | .88±.02   | .95±.03   | 1    | .30±.01   | .34±.02   | .63
cifar100 | 7.44±.06  | 7.68±.06  | 7.83 | 3.92±.06  | 4.07±.08  | 6.49
birdsnap | 13.64±.15 | 14.30±.18 | 15.7 | 9.93±.15  | 10.31±.15 | 14.5
food101  | 7.02±.02  | 7.17±.03  | 7.0  | 3.82±.01  | 3.97±.03  | 4.7
imagenet | 15.14±.03 | 15.3      | 14.2 | 11.39±.02 | 11.8      | 11.45
"""

#: Method, accuracy at 20, 40, 60 and 80 % noise.
TABLE4 = """
sgd             | 84.8 | 68.8 | 48.2 | 26.2
mixup           | 93.0 | 90.0 | 83.8 | 70.2
bootstrap-mixup | 93.3 | 92.0 | 87.6 | 72.0
sam             | 95.1 | 93.4 | 90.5 | 77.9
bootstrap-sam   | 95.4 | 94.2 | 91.8 | 79.9
mentormix       | 95.6 | 94.2 | 91.3 | 81.0
mixup-before    | 94.0 | 91.5 | 86.8 | 76.9
mentornet       | 92.0 | 91.2 | 74.2 | 60.0
sanchez         | 94.0 | 92.8 | 90.3 | 74.1
zhang-sabuncu   | 89.7 | 87.6 | 82.7 | 67.9
lee             | 87.1 | 81.8 | 75.4 | -
chen            | 89.7 | -    | -    | 52.3
huang           | 92.6 | 90.3 | 43.4 | -
"""

#: Network, augmentation, SVHN and Fashion-MNIST, each SAM / SGD.
TABLE5 = """
wrn-28-10   | basic | 1.42±.02 / 1.58±.03 | 3.98±.05 / 4.57±.07
wrn-28-10   | aa    | .99±.01 / 1.14±.04  | 3.61±.06 / 3.86±.14
shake-shake | basic | 1.44±.02 / 1.58±.05 | 3.97±.09 / 4.37±.06
shake-shake | aa    | 1.07±.02 / 1.03±.02 | 3.59±.01 / 3.76±.07
"""

#: rho, error at 20, 40, 60 and 80 % noise.
TABLE8 = """
0    | 15.0 | 31.2 | 52.3 | 73.5
0.01 | 13.7 | 28.7 | 50.1 | 72.9
0.02 | 12.8 | 27.8 | 48.9 | 73.1
0.05 | 11.6 | 25.6 | 47.1 | 21.0
0.1  | 4.6  | 6.0  | 8.7  | 56.1
0.2  | 5.3  | 7.4  | 23.3 | 77.1
0.5  | 17.6 | 40.9 | 80.1 | 89.9
"""

#: Steps up, CIFAR-10 error and sharpness, CIFAR-100 error and sharpness.
TABLE11 = """
1 | 2.77±.03 | .17±.03  | 16.72±.08 | .82±.05
2 | 2.76±.03 | .82±.03  | 16.59±.08 | 1.83±.05
3 | 2.73±.04 | 1.49±.05 | 16.62±.09 | 2.36±.03
5 | 2.77±.03 | 2.26±.05 | 16.60±.06 | 2.82±.04
"""

#: Data, error with b7 and rho 0.05.
TABLE10 = """
aircraft | 7.06
flowers  | .81
pets     | 4.15
cars     | 5.57
cifar10  | .88
cifar100 | 7.56
birdsnap | 13.64
food101  | 7.06
"""

#: The cells of Table 9 that differ from Table 1: network, data, Basic, Cutout, AA.
TABLE9 = """
shake-shake | cifar10  | 2.4  | 2.0  | 1.7
pyramidnet  | cifar10  | 2.1  | 1.6  | 1.4
pyramidnet  | cifar100 | 15.4 | 13.1 | 12.1
"""

#: Method, epoch, lambda max, lambda max / lambda 5.
FIGURE3 = """
sgd | 1   | 62.9 | 2.5
sgd | 50  | 12.5 | 1.7
sgd | 300 | 24.2 | 11.4
sam | 1   | 18.6 | 3.6
sam | 50  | 8.9  | 1.9
sam | 300 | 1.0  | 2.6
"""

#: Network, learning rate on CIFAR-10 and CIFAR-100, weight decay, rho on both.
TABLE6 = """
wrn-28-10-200        | .1  | .1  | .0005 | .05 | .1
wrn-28-10-1800       | .05 | .05 | .001  | .05 | .1
shake-shake          | .02 | .02 | .001  | .02 | .05
pyramidnet           | .05 | .05 | .0005 | .05 | .2
pyramidnet-shakedrop | .02 | .05 | .0005 | .05 | .05
"""

#: Data, network, learning rate, weight decay, rho.
TABLE7 = """
svhn          | wrn-28-10   | .01 | .0005 | .01
svhn          | shake-shake | .01 | .0005 | .01
fashion-mnist | wrn-28-10   | .1  | .0005 | .05
fashion-mnist | shake-shake | .1  | .0005 | .02
"""


def lines(table: str) -> list[list[str]]:
    """The words between the bars."""
    return [[w.strip() for w in t.split("|")] for t in table.strip().splitlines()]
