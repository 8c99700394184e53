from configs import base


def get_config(preset: str = "streets"):
    config = base.get_config()
    config.model.name = "pspnet"
    config.model.width = 0.25
    config.model.stem = "7x7"
    config.optim.learning_rate = 0.05
    config.train.epochs = 10.0
    return config
