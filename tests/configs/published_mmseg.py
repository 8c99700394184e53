"""What mmsegmentation 1.2 says in configs/_base_, in the form of `published.TABLE`."""

CITYSCAPES = (
    (
        "schedules/schedule_40k.py",
        {
            "optim.name": "sgd",
            "optim.momentum": 0.9,
            "optim.learning_rate": 0.01,
            "optim.weight_decay": 5e-4,
            "optim.decay_scale": {},
            "optim.schedule": "poly",
            "optim.poly_power": 0.9,
            "optim.eta_min": 1e-4,
            "train.steps": 40_000,
            "train.eval_every": 4000,
        },
    ),
    (
        "datasets/cityscapes.py",
        {
            "data.name": "cityscapes",
            "augment.crop_size": (512, 1024),
            "augment.scale": (0.5, 2.0),
            "augment.max_class_share": 0.75,
            "augment.flip": True,
            "augment.antialias": False,
            "augment.padding": "end",
            "train.batch_size": 8,  # 4 GPUs, 2 images each
        },
    ),
    (
        "PhotoMetricDistortion",
        {
            "augment.colour_model": "hsv",
            "augment.brightness": 32 / 255,
            "augment.contrast": 0.5,
            "augment.saturation": 0.5,
            "augment.hue": 0.1,  # 18 of OpenCV's 180 steps a turn
            "augment.brightness_probability": 0.5,
            "augment.contrast_probability": 0.5,
            "augment.saturation_probability": 0.5,
            "augment.hue_probability": 0.5,
        },
    ),
)
ASPP = {
    "model.encoder": "resnet50",
    "model.stem": "v1c",
    "model.output_stride": 8,
    "model.contract_dilation": True,
    "model.multi_grid": (1, 1, 1),
    "model.rates": (6, 12, 18),  # 1, 12, 24, 36 at stride 8; 1 is the 1x1 branch
    "model.aspp_features": 512,
    "model.project_kernel": 3,
    "model.image_pooling": True,
    "model.dropout_rate": 0.1,
    "model.align_corners": False,
    "loss.aux_weight": 0.4,
    "loss.terms": "cross_entropy(divide_by=all)",  # avg_non_ignore=False
    "loss.class_weights": "none",
}
