"""The seed documents' own networks, with the documents' own training settings.

Sources: the documents `segnet_keras_idd`, `pspnet_keras_idd`, `deeplabv3_keras_idd` (India Driving
Dataset, level 1, 240x480, split as `presets.py` says) and `segnet_ncsu_camvid_report`
(CamVid, 416x608, test case 1).
  python launch.py --config=configs/notebooks.py            streets at 96x192, SegNet's at width 1/4
  python launch.py --config=configs/notebooks.py:segnet     the SegNet notebook
  python launch.py --config=configs/notebooks.py:pspnet     the PSPNet notebook
  python launch.py --config=configs/notebooks.py:deeplabv3  the DeepLabV3 notebook
  python launch.py --config=configs/notebooks.py:ncsu       the NCSU report; its encoder starts from
                                                            VGG16's: --config.init_from=imagenet
What the documents report, as mIoU / pixel accuracy of the best checkpoint (the average of mIoUs of
two images at a time, as far as their code shows it, so not the mIoU of a whole split):
              train            validation       test             best val_miou of the log
  SegNet      0.6258 / 0.9154  0.5643 / 0.8698  0.5747 / 0.8814  0.6350, epoch 8 of 13
  PSPNet      0.4612 / 0.8225  0.4201 / 0.7796  0.4284 / 0.7941  0.4898, epoch 10 of 13
  DeepLabV3   0.6598 / 0.9279  0.5655 / 0.8725  0.5752 / 0.8832  0.6229, epoch 15 of 20
  NCSU        accuracy 0.9163 on the training images at the end of epoch 50; no mIoU
The `:idd` presets of the other configs train the papers' networks with the same settings.
What the sources of segnet say:
  segnet_keras_idd: data.image_size=240x480, optim.name=adam, optim.learning_rate=0.0001,
    optim.schedule=constant, optim.weight_decay=0, optim.plateau_patience=3,
    optim.plateau_factor=0.2, optim.plateau_min_rate=1e-05, train.batch_size=16, train.epochs=30,
    train.early_stop_patience=5, loss.terms=cross_entropy, loss.class_weights=none,
    augment.scale=1x1, augment.flip=False, augment.rotate=0
  Keras's default: optim.epsilon=1e-07, optim.beta1=0.9, optim.beta2=0.999
What the sources of pspnet say:
  pspnet_keras_idd: data.image_size=240x480, optim.name=adam, optim.learning_rate=0.001,
    optim.schedule=constant, optim.weight_decay=0, optim.plateau_patience=2,
    optim.plateau_factor=0.2, optim.plateau_min_rate=0.0005, train.batch_size=8, train.epochs=30,
    train.early_stop_patience=3, loss.terms=cross_entropy, loss.class_weights=none,
    augment.scale=1x1, augment.flip=False, augment.rotate=0
  Keras's default: optim.epsilon=1e-07, optim.beta1=0.9, optim.beta2=0.999
Different in pspnet: the printed log counts to 50 epochs, the code to 30, as here.
What the sources of deeplabv3 say:
  deeplabv3_keras_idd: data.image_size=240x480, optim.name=adam, optim.learning_rate=0.001,
    optim.schedule=constant, optim.weight_decay=0, optim.plateau_patience=3,
    optim.plateau_factor=0.2, optim.plateau_min_rate=0.0005, train.batch_size=8, train.epochs=50,
    train.early_stop_patience=5, loss.terms=cross_entropy, loss.class_weights=none,
    augment.scale=1x1, augment.flip=False, augment.rotate=0
  Keras's default: optim.epsilon=1e-07, optim.beta1=0.9, optim.beta2=0.999
What the sources of ncsu say:
  segnet_ncsu_camvid_report, test case 1: data.name=camvid, data.image_size=416x608, optim.name=sgd,
    optim.learning_rate=0.001, train.steps=25600
  Keras's default: optim.momentum=0, optim.schedule=constant
Different in ncsu: the batch size is not said. The report's network has 101 outputs.
"""

from configs import presets, recipes


def get_config(preset: str = "streets"):
    return presets.make("notebook_segnet", preset, PRESETS)  # the four have the same options


def streets(config):
    presets.streets(config, 96, 192)
    config.model.update(width=0.25, momentum=0.9)  # 0.99 is slow for so few steps
    config.optim.update(name="adamw", learning_rate=1e-3, schedule="cosine", warmup_steps=50)
    config.train.update(steps=900, batch_size=4, eval_every=225)


# How the notebooks scaled their images is in a module that the documents lack: here to [0, 1].
UNIT_RANGE = dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

# The notebooks' ReduceLROnPlateau takes a rising val_miou for a standstill (Keras's mode "auto"
# minimises what is not called an accuracy), so in their logs the rate falls at fixed epochs: after
# epochs 4 and 7 (SegNet), 3 (PSPNet) and 4 (DeepLabV3). Here it waits for a real standstill.


def segnet(config):
    presets.segnet_notebook(config)
    config.data.update(UNIT_RANGE)


def pspnet(config):
    presets.pspnet_notebook(config)
    config.data.update(UNIT_RANGE)
    config.model.name = "notebook_pspnet"


def deeplabv3(config):
    presets.deeplabv3_notebook(config)
    config.data.update(UNIT_RANGE)
    config.model.name = "notebook_deeplabv3"


def ncsu(config):
    """Test case 1: SGD 0.001, 50 epochs of 512 steps, nothing augmented.

    The report's network has 101 outputs, the default of its code; CamVid has 32 classes at most.
    This one has an output for each of the 11 that are used with SegNet.
    """
    presets.camvid(config, 416, 608)
    recipes.nothing(config)
    config.data.update(
        # VGG16's Caffe weights: the mean of each channel taken away on a scale of 0 to 255.
        mean=(123.68 / 255, 116.779 / 255, 103.939 / 255),
        std=(1 / 255, 1 / 255, 1 / 255),
    )
    config.model.name = "ncsu_segnet"
    config.optim.update(
        name="sgd",
        learning_rate=0.001,
        momentum=0.0,  # Keras's default; the report names none
        weight_decay=0.0,
        schedule="constant",
    )
    # The batch size is not in the report.
    config.train.update(steps=50 * 512, batch_size=2, eval_every=512)


PRESETS = dict(streets=streets, segnet=segnet, pspnet=pspnet, deeplabv3=deeplabv3, ncsu=ncsu)
