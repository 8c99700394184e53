"""Every option, its default and what it means. The other configs change what differs.

A config file has `get_config(preset)`; choose with `--config=configs/NAME.py:PRESET` and override
with `--config.section.option=value`.
"""

import ml_collections

from segjax.config import ByPart
from segjax.models import model_defaults


def get_config(model: str = "") -> ml_collections.ConfigDict:
    """All defaults, with all options of a model; without a model's name, none of them."""
    config = ml_collections.ConfigDict()
    config.seed = 0  # of the parameters, the data order, augmentation and dropout
    config.dtype = "float32"  # compute dtype: float32 or bfloat16 (parameters stay float32)
    # Weights to start from: a name (imagenet), a .pth, .safetensors, .onnx, .h5, .keras or .whl
    # file, or the workdir of another run; "" = none. See docs/weights.md.
    config.init_from = ""
    config.init_parts = "all"  # all, encoder

    # `name`, and options of that model: the fields of its class in segjax.models, whose docstring
    # says what they mean. A config holds all of them, at the class's defaults.
    config.model = ml_collections.ConfigDict(model_defaults(model) if model else {"name": "pspnet"})

    config.data = data = ml_collections.ConfigDict()
    # streets (procedural, no files), folder (your own files), camvid, idd, idd_lite, cityscapes,
    # voc, ade20k, sunrgbd, tfds:NAME, prepared (what --mode=prepare wrote)
    data.name = "streets"
    data.variant = ""  # of the data set, where it has several; "" = its first
    data.root = ""  # folder of the data set on disk
    # folder: patterns of image and mask files below root, with {split}, {stem} and *, such as
    # images/{split}/{stem}.jpg and masks/{stem}_mask.png, or of their folders; "" = as found
    data.images = ""
    data.masks = ""
    data.image_size = (97, 193)  # (H, W) canvas that every image is fitted to
    # What evaluation scores at: (0, 0) = the canvas; ("own",), or --config.data.label_size=own: the
    # labels' own size; (H, W): prediction and label resized to it, by nearest neighbour.
    data.label_size = (0, 0)
    data.num_classes = 0  # 0 = as the data set or the class list says
    data.classes = ""  # folder, tfds: class list, a file or "road,car,sky"
    data.ignore_ids = (255,)  # folder, tfds: raw ids that mean ignore
    # folder: ids (one class per pixel), bits (bit k of a value is class k; with one class 0 and 1,
    # or 0 and 255 if 255 is not among ignore_ids), per_class (a file for each class),
    # one_per_class (such files that do not overlap), panoptic (COCO's segment ids and JSON).
    data.mask_format = "ids"
    # folder, masks of two values (two classes, one class of bits, files for each class): values at
    # or above it, 255 too, are the foreground, such as 128 for JPEG or soft edges; 0 = off
    data.mask_threshold = 0.0
    # folder, masks in colours: others are read as the nearest colour of the class list, at most so
    # far from it in each channel (0..255); 0 = exact
    data.color_distance = 0
    data.missing_is_empty = False  # per_class, one_per_class: no file means that no pixel has it
    data.class_map = ""  # YAML or JSON file: the classes to keep, merge and ignore
    data.channels = 3  # of images; 3 = RGB, whatever the file holds; others only from folder
    # folder: the values that become 0 and 255, (0,4095) of 12-bit files; a pair for each channel;
    # auto: found over the training split (0.1 and 99.9 percentiles); () = all that the type holds.
    data.value_range = ()
    # folder, predict: images turned by their EXIF orientation where the size of the mask does not
    # tell: apply, ignore; auto: as the other training images, else refused (predict turns).
    data.exif = "auto"
    data.image_feature = "image"  # tfds: names of the features
    data.label_feature = "segmentation_mask"
    data.train_split = "train"
    data.val_split = "val"  # decides which checkpoint is the best
    # folder: shares of the training split for val_split and for test, drawn by a hash of the names,
    # where there are no such splits; 0 = none
    data.val_share = 0.0
    data.test_share = 0.0
    data.skip_unlabelled = False  # folder: leave images without a mask out
    # Evaluated at the end; () = val_split, and "test" where there is one with labels.
    data.eval_splits = ()
    data.train_images = 480  # streets: scenes in the training split
    data.eval_images = 64  # streets: scenes in each other split
    # uniform: each image once an epoch; repeat_factor: images with rare classes more often, after
    # LVIS; balanced: a class is drawn, then an image that shows it.
    data.sampling = "uniform"
    data.repeat_threshold = 0.1  # repeat_factor: classes in fewer images than this share are rare
    data.workers = 0  # processes that decode; 0 = threads of this one
    data.timeout_s = 300.0  # without a batch, after which the run ends with an error
    # A training file that cannot be read, or is wrong: stop; skip (the next readable sample takes
    # its place, files are named and counted).
    data.on_unreadable = "stop"
    # Data, classes or class map that are others than when the run started: stop; accept (go on with
    # them, which run.json and the report say; number and order of the classes must stay).
    data.on_changed = "stop"
    data.cache_mb = 2000.0  # sets that fit stay decoded in memory (10**6 bytes, per process)
    data.on_device = False  # the training split stays on the device, decoded
    # Side of the window of local contrast normalisation, in place of mean and std; 0 = off.
    data.local_contrast = 0
    # RGB images in [0, 1], 3 numbers each; () = as the network of init_from was trained, else
    # ImageNet's (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225).
    data.mean = ()
    data.std = ()

    config.augment = augment = ml_collections.ConfigDict()
    augment.crop_size = (0, 0)  # (H, W) that the model trains on; (0, 0) = the canvas
    augment.scale = (0.5, 2.0)  # random zoom, uniform; (1, 1) = off
    augment.aspect = (1.0, 1.0)  # width over height of a square, uniform; (1, 1) = off
    augment.antialias = True  # shrinking smooths first, as PIL; False: four pixels, as OpenCV
    augment.rotate = 0.0  # degrees, from [-v, v]; 0 = off
    augment.rotate_probability = 1.0
    # An image smaller than the crop lies in it: around (anywhere), centre, end (at the top left).
    augment.padding = "around"
    augment.max_class_share = 1.0  # of a crop's labels: above it another crop is drawn; 1 = off
    augment.flip = True  # mirror left-right
    augment.flip_probability = 0.5
    augment.flip_vertical = 0.0  # probability of mirroring top-bottom; 0 = off
    augment.quarter_turns = 0.0  # probability of a turn by 90, 180 or 270 degrees; 0 = off
    augment.blur = 0.0  # probability of a 5x5 Gaussian blur; 0 = off
    augment.brightness = 0.25  # factor from [1 - v, 1 + v]; 0 = off
    augment.contrast = 0.25
    augment.saturation = 0.25
    augment.hue = 0.02  # turns, from [-v, v]
    augment.brightness_probability = 1.0  # of each change
    augment.contrast_probability = 1.0
    augment.saturation_probability = 1.0
    augment.hue_probability = 1.0
    # yiq; hsv: as mmsegmentation's PhotoMetricDistortion, where brightness is added, from [-v, v]
    augment.colour_model = "yiq"
    augment.noise = 0.0  # standard deviation of Gaussian noise, of images in [0, 1]; 0 = off
    augment.noise_probability = 1.0
    augment.cutout = 0  # squares that show nothing; 0 = off
    augment.cutout_size = 0.25  # their side, as a share of the crop's shorter side
    augment.cutout_probability = 1.0
    augment.cutout_labels = "kept"  # kept, ignored
    # Probability of pasting, from another view of the batch and with its labels: a box of half of
    # the area; the pixels of half of its classes.
    augment.cutmix = 0.0
    augment.classmix = 0.0

    config.loss = loss = ml_collections.ConfigDict()
    # A sum of losses of segjax.losses, each with its options and a factor, such as
    # "cross_entropy(label_smoothing=0.1) + 0.5 * lovasz_softmax": cross_entropy, focal,
    # boundary_cross_entropy, dice, jaccard, tversky, lovasz_softmax (or lovasz), ohem.
    loss.terms = "cross_entropy"
    loss.aux_terms = ""  # of the auxiliary head; "" = the same
    # For the losses that take them (cross_entropy, focal, boundary_cross_entropy, ohem).
    # none; published (the data set's own); from the training split: median_present (the median
    # over classes of freq, over freq, where freq is a class's share of the pixels of the images
    # that show it), median_global (freq is its share of all pixels), enet; or one number per
    # class, as "1.0,0.5,..."
    loss.class_weights = "none"
    loss.aux_weight = 0.4  # of the auxiliary head, where the model has one

    config.optim = optim = ml_collections.ConfigDict()
    # sgd, adam, adamw, adadelta, nadam, rmsprop, lamb, lion, muon. What is said of an option below
    # is which of them read it.
    optim.name = "sgd"
    optim.optimizer_function = None  # in place of name: a function of the config file
    optim.learning_rate = 0.01
    optim.momentum = 0.9  # sgd, rmsprop, muon
    optim.nesterov = False  # sgd
    optim.beta1 = 0.9  # adam, adamw, nadam, lamb, lion, muon
    optim.beta2 = 0.999  # adam, adamw, nadam, lamb, lion, muon
    optim.rho = 0.95  # adadelta, rmsprop
    optim.epsilon = 1e-8  # adam, adamw, adadelta, nadam, rmsprop, lamb, muon
    # Added to the gradient; apart from it (decoupled) for adamw, lamb, lion, muon.
    optim.weight_decay = 1e-4
    # Factors on the learning rate and on the weight decay of parts of the network, which multiply
    # where a parameter is in several: {"head": 10, "bias": 2}, or "head=10,bias=2". Parts are
    # encoder, head (neither encoder nor aux), aux, classifier (what makes the logits), kernel,
    # bias, norm, or a regular expression for paths of parameters or modules; --mode=plan lists
    # them. Without decay_scale all parameters decay.
    optim.lr_scale = ByPart("")
    optim.decay_scale = ByPart("bias=0,norm=0")
    optim.layer_decay = 1.0  # factor on the rate from each stage of the encoder to the one before
    optim.clip_norm = 0.0  # largest global gradient norm; 0 = off
    # constant, poly, cosine, step, cosine_restarts, exponential, one_cycle
    optim.schedule = "poly"
    optim.schedule_function = None  # in place of schedule: a function of the config file
    optim.poly_power = 0.9  # poly
    optim.step_at = (0.6, 0.85)  # step: shares of the run
    optim.step_factor = 0.1  # step: factor at each of them
    # The rate at the end, as a share of learning_rate or (eta_min) as it is, of which one is 0.
    optim.end_factor = 0.0  # poly, cosine, cosine_restarts, exponential
    optim.eta_min = 0.0  # poly, cosine, cosine_restarts, exponential
    optim.cycles = 4  # cosine_restarts: falls in the run
    optim.cycle_mult = 1.0  # cosine_restarts: each fall is so many times as long as the last one
    optim.pct_start = 0.3  # one_cycle: share of the run that rises to learning_rate
    optim.div_factor = 25.0  # one_cycle: starts at learning_rate / div_factor
    optim.final_div_factor = 1e4  # one_cycle: ends at the first rate / final_div_factor
    optim.warmup_steps = 0  # before the schedule, which has the other steps
    optim.warmup_kind = "linear"  # rises to learning_rate; constant: stays ("slow start")
    optim.warmup_start_factor = 0.0  # share of learning_rate that a warm-up starts at
    optim.plateau_patience = 0  # evaluations without a better val mIoU; 0 = off
    optim.plateau_factor = 0.2
    optim.plateau_min_rate = 0.0

    config.train = train = ml_collections.ConfigDict()
    train.steps = 0  # updates; 0 = as many as `epochs` make
    train.epochs = 0.0  # passes over the training split, if steps is 0
    train.batch_size = 8  # images a step, over all devices
    train.eval_batch_size = 0  # 0 = batch_size
    train.accumulate = 1  # micro-batches a step
    # Computed again in the backward pass instead of kept: none; convs (all but the outputs of
    # convolutions); blocks (all but the outputs of blocks). Less memory, same numbers.
    train.remat = "none"
    # A loss or gradient that is not finite: stop; skip (the step changes nothing, and is counted);
    # rollback (to the last checkpoint, with the learning rate times nonfinite_factor).
    train.on_nonfinite = "stop"
    train.nonfinite_factor = 0.5
    # Parts, as above, that keep their weights; their batch norms keep and use their running
    # statistics. On the command line also --config.train.freeze=encoder,norm
    train.freeze = ()
    train.ema_decay = 0.0  # running average of the weights, which is then evaluated; 0 = off
    train.ema_warmup = False  # a shorter average in the first steps: min(ema_decay, (1+t)/(10+t))
    train.eval_every = 0  # steps between evaluations; 0 = once an epoch
    train.save_every = 0  # steps between further checkpoints; 0 = at evaluations only
    train.early_stop_patience = 0  # evaluations without a better val mIoU; 0 = off
    train.log_every = 20  # steps between lines of metrics.jsonl

    config.parallel = parallel = ml_collections.ConfigDict()
    # jit (one program over a mesh of devices; pads a batch that does not divide) or pmap (one per
    # device, which sums statistics and gradients; batch_size must divide): same numbers.
    parallel.mode = "jit"
    parallel.data = 0  # devices that share the batch; 0 = all
    parallel.space = 1  # devices that share the rows of an image; jit only
    parallel.shard_optimizer = False  # each device of `data` keeps a part of its state; jit only

    config.report = report = ml_collections.ConfigDict()
    report.samples = 8  # pictures in the sample grid and in what the writers show
    # Of the evaluation at the end and of --mode=evaluate, beside the counts of pixels: boundary
    # (scores near borders), objects (by size and distance), calibration; also on the command line
    # --config.report.measures=boundary,calibration, () for none.
    report.measures = ("boundary", "objects", "calibration")
    # That show a run to others while it trains, beside metrics.jsonl, which has all numbers:
    # tensorboard, mlflow, wandb; also --config.report.writers=tensorboard,mlflow, () for none.
    report.writers = ("tensorboard",)
    return config
