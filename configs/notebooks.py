"""The seed documents' own networks, with the documents' own training settings.

Sources: the documents `segnet_keras_idd`, `pspnet_keras_idd`, `deeplabv3_keras_idd` (India Driving
Dataset, level 1, 240x480; `presets.idd` says how it is split) and `segnet_ncsu_camvid_report`
(CamVid, 416x608, test case 1).
  python launch.py --config=configs/notebooks.py            streets at 96x192, SegNet's at width 1/4
  python launch.py --config=configs/notebooks.py:segnet     the SegNet notebook
  python launch.py --config=configs/notebooks.py:pspnet     the PSPNet notebook
  python launch.py --config=configs/notebooks.py:deeplabv3  the DeepLabV3 notebook
  python launch.py --config=configs/notebooks.py:ncsu       the NCSU report; its encoder starts from
                                                            VGG16's: --config.init_from=FILE
What the documents report, as mIoU / pixel accuracy of the best checkpoint (the average of mIoUs of
two images at a time, as far as their code shows it, so not the mIoU of a whole split):
              train            validation       test             best val_miou of the log
  SegNet      0.6258 / 0.9154  0.5643 / 0.8698  0.5747 / 0.8814  0.6350, epoch 8 of 13
  PSPNet      0.4612 / 0.8225  0.4201 / 0.7796  0.4284 / 0.7941  0.4898, epoch 10 of 13
  DeepLabV3   0.6598 / 0.9279  0.5655 / 0.8725  0.5752 / 0.8832  0.6229, epoch 15 of 20
  NCSU        accuracy 0.9163 on the training images at the end of epoch 50; no mIoU
The `:idd` presets of the other configs train the papers' networks with the same settings.
"""

from configs import base, deeplabv3, presets, pspnet, recipes, segnet


def get_config(preset: str = "streets"):
    config = base.get_config()
    config.model.name = "notebook_segnet"  # the others have the same options
    config.model.width = 1.0
    config.model.momentum = 0.99  # batch normalisation: Keras's default
    presets.apply(
        config,
        preset,
        {
            "streets": streets,
            "segnet": segnet_notebook,
            "pspnet": pspnet_notebook,
            "deeplabv3": deeplabv3_notebook,
            "ncsu": ncsu,
        },
    )
    return config


def streets(config):
    presets.streets_short(config)
    config.model.width = 0.25
    config.model.momentum = 0.9  # 0.99 is slow for so few steps
    config.data.image_size = (96, 192)
    config.optim.learning_rate = 1e-3
    config.train.batch_size = 4
    config.train.steps = 900
    config.train.eval_every = 225


def unit_range(config):
    """Images in [0, 1]: how the notebooks scaled theirs is in a module that the documents lack."""
    config.data.mean = (0.0, 0.0, 0.0)
    config.data.std = (1.0, 1.0, 1.0)


# The notebooks' ReduceLROnPlateau takes a rising val_miou for a standstill (Keras's mode "auto"
# minimises what is not called an accuracy), so in their logs the rate falls at fixed epochs: after
# epochs 4 and 7 (SegNet), 3 (PSPNet) and 4 (DeepLabV3). Here it waits for a real standstill.


def segnet_notebook(config):
    """Adam 1e-4, batch 16, 30 epochs, early stopping 5, plateau 3 (times 0.2, to 1e-5)."""
    segnet.idd(config)
    unit_range(config)


def pspnet_notebook(config):
    """Adam 1e-3, batch 8, 30 epochs, early stopping 3, plateau 2 (times 0.2, to 5e-4)."""
    pspnet.idd(config)
    unit_range(config)
    config.model.name = "notebook_pspnet"
    config.model.width = 1.0


def deeplabv3_notebook(config):
    """Adam 1e-3, batch 8, 50 epochs, early stopping 5, plateau 3 (times 0.2, to 5e-4)."""
    deeplabv3.idd(config)
    unit_range(config)
    config.model.name = "notebook_deeplabv3"
    config.model.width = 1.0


def ncsu(config):
    """Test case 1: SGD 0.001, 50 epochs of 512 steps, nothing augmented.

    The report's network has 101 outputs, the default of its code; CamVid has 32 classes at most.
    This one has an output for each of the 11 that are used with SegNet.
    """
    presets.camvid(config)
    config.model.name = "ncsu_segnet"
    config.data.image_size = (416, 608)
    # VGG16's Caffe weights: the mean of each channel taken away on a scale of 0 to 255.
    config.data.mean = (123.68 / 255, 116.779 / 255, 103.939 / 255)
    config.data.std = (1 / 255, 1 / 255, 1 / 255)
    recipes.nothing(config)
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.001
    config.optim.momentum = 0.0  # Keras's default; the report names none
    config.optim.weight_decay = 0.0
    config.optim.schedule = "constant"
    config.train.batch_size = 2  # not in the report
    config.train.steps = 50 * 512
    config.train.eval_every = 512
