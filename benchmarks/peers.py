"""One way to train one fold, timed: ours and what people write by hand; torch is enough.

    python benchmarks/peers.py --way population --architecture dense --data-dir DIR

Prints one JSON line. ``run.py`` calls this in fresh processes, so that no way inherits the
threads, memory or warm caches of another. skorch and Lightning are optional: a peer that is
not installed is reported as such.
"""

import argparse
import json
import resource
import statistics
import time
from pathlib import Path

import torch
from torch import nn

BATCH = 1000
ENCODING_DIM = 16


def mnist(folder):
    """The 60,000 training images, (sample, 1, 28, 28) uint8, read without any library."""
    path = Path(folder) / "MNIST" / "raw" / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    return torch.frombuffer(content, dtype=torch.uint8, offset=16).view(-1, 1, 28, 28)


def digits():
    """The 1,438 training images of the quick start's split size, (sample, 1, 8, 8) uint8."""
    from sklearn.datasets import load_digits

    images = torch.from_numpy(load_digits().images[:1438] / 16 * 255).round().to(torch.uint8)
    return images.unsqueeze(1)


def fold(n, k=3):
    """Training and validation indices of the first of k folds, shuffled with a fixed seed."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    n_validation = n // k
    return order[n_validation:].sort().values, order[:n_validation].sort().values


def plain(architecture, shape):
    """The network as everybody would write it: stock layers."""
    from aesearch.models.autoencoder import build_autoencoder

    pixels = shape[0] * shape[1] * shape[2]
    return build_autoencoder(
        architecture=architecture,
        image_shape=shape,
        encoding_dim=ENCODING_DIM,
        hidden=(max(128, pixels // 2),),
    )


class Images(torch.utils.data.Dataset):
    """What torchvision's MNIST with ToTensor gives: one image a time, as floats in [0, 1]."""

    def __init__(self, images, indices):
        from PIL import Image
        from torchvision.transforms import ToTensor

        self.images, self.indices = images.numpy(), indices.tolist()
        self.to_image, self.to_tensor = Image.fromarray, ToTensor()

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, i):
        return self.to_tensor(self.to_image(self.images[self.indices[i], 0]))


def dataloader_loop(arguments, images, train, validation):
    """Peer (a): the reports' way, DataLoader + ToTensor."""
    batch, device = arguments.batch_size, arguments.device
    train_loader = torch.utils.data.DataLoader(Images(images, train), batch, shuffle=True)
    validation_loader = torch.utils.data.DataLoader(Images(images, validation), batch)
    model = plain(arguments.architecture, images.shape[1:]).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)

    def epoch():
        model.train()
        for x in train_loader:
            x = x.to(device)
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), x).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for x in validation_loader:
                x = x.to(device)
                nn.functional.mse_loss(model(x), x).item()

    return epoch, 1


def resident_loop(arguments, images, train, validation):
    """Peer (b): the same loop on one resident float tensor, minibatches by index."""
    batch, device = arguments.batch_size, arguments.device
    x = (images.float() / 255).to(device)
    model = plain(arguments.architecture, images.shape[1:]).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)

    def epoch():
        model.train()
        for indices in train[torch.randperm(len(train))].to(device).split(batch):
            sample = x[indices]
            optimizer.zero_grad()
            nn.functional.mse_loss(model(sample), sample).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for indices in validation.to(device).split(batch):
                sample = x[indices]
                nn.functional.mse_loss(model(sample), sample).item()

    return epoch, 1


def skorch_net(arguments, images, train, validation):
    """Peer (c): a skorch net, as sklearn's ``cross_val_score`` would fit it for one fold."""
    from skorch import NeuralNet
    from skorch.dataset import Dataset
    from skorch.helper import predefined_split

    x = images.float() / 255
    net = NeuralNet(
        plain(arguments.architecture, images.shape[1:]),
        nn.MSELoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        optimizer__weight_decay=1e-5,
        batch_size=arguments.batch_size,
        max_epochs=1,
        train_split=predefined_split(Dataset(x[validation], x[validation])),
        device=arguments.device,
        verbose=0,
    ).initialize()
    x_train = x[train]
    return (lambda: net.partial_fit(x_train, x_train)), 1


def lightning_trainer(arguments, images, train, validation):
    """Peer (d): Lightning with TensorDataset loaders, as an Optuna objective would call it."""
    import logging
    import warnings

    import lightning

    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    x = images.float() / 255
    loader = torch.utils.data.DataLoader
    train_set = torch.utils.data.TensorDataset(x[train])
    validation_set = torch.utils.data.TensorDataset(x[validation])

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = plain(arguments.architecture, images.shape[1:])

        def training_step(self, batch, _index):
            return nn.functional.mse_loss(self.model(batch[0]), batch[0])

        def validation_step(self, batch, _index):
            self.log("loss", nn.functional.mse_loss(self.model(batch[0]), batch[0]))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-3, weight_decay=1e-5)

    n_epochs = arguments.epochs

    def epochs():
        trainer = lightning.Trainer(
            max_epochs=n_epochs,
            accelerator="cpu" if arguments.device == "cpu" else "gpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(
            Module(),
            loader(train_set, arguments.batch_size, shuffle=True),
            loader(validation_set, arguments.batch_size),
        )

    return epochs, n_epochs


def population(arguments, images, train, validation):
    """Ours: ``members`` folds as one population."""
    from aesearch.models.runtime import prepare_process
    from aesearch.models.training.population import Member, Population

    prepare_process(arguments.threads)
    pixels = images[0].numel()
    members = [
        Member(
            seed=seed,
            learning_rate=1e-3,
            weight_decay=1e-5,
            dropout=0.0,
            encoding_dim=ENCODING_DIM,
            hidden=(max(128, pixels // 2),),
            train_indices=train,
            validation_indices=validation,
        )
        for seed in range(arguments.members)
    ]
    trained = Population(
        members,
        images.to(arguments.device),
        architecture=arguments.architecture,
        channels=(8, 16, 32),
        conv_hidden=128,
        code_activation="linear",
        activation="relu",
        shortcut="none",
        output="sigmoid",
        initialization="torch",
        averaging=None,
        optimizer="adam",
        momentum=0.9,
        schedule="none",
        gamma=0.95,
        factor=0.1,
        patience=10,
        epochs=10**6,
        batch_size=arguments.batch_size,
        device=arguments.device,
        precision=arguments.precision,
    )
    return trained.run_epoch, arguments.members


WAYS = {
    "dataloader": dataloader_loop,
    "resident": resident_loop,
    "skorch": skorch_net,
    "lightning": lightning_trainer,
    "population": population,
}


def synchronise(device):
    """Wait for the GPU, so that a time is the time of the work."""
    if device != "cpu":
        torch.cuda.synchronize()


def profile(run):
    """Where the time of one run goes: share of each operator, the largest first."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recording

    with recording(activities=[ProfilerActivity.CPU]) as recorded:
        run()
    times = {each.key: each.self_cpu_time_total for each in recorded.key_averages()}
    total = sum(times.values())
    largest = sorted(times, key=times.get, reverse=True)
    return {name: round(times[name] / total, 3) for name in largest if times[name] > total / 100}


def main():
    """Measure one way and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=WAYS, required=True)
    parser.add_argument("--architecture", choices=("dense", "conv"), default="dense")
    parser.add_argument("--dataset", choices=("mnist", "digits"), default="mnist")
    parser.add_argument("--data-dir", default="../shared/data")
    parser.add_argument("--images", type=int, help="use (or repeat to) this many images")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=BATCH)
    parser.add_argument("--epochs", type=int, default=3, help="measured, after one to warm up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument(
        "--profile", action="store_true", help="print each operator's share of the time instead"
    )
    parser.add_argument("--start-at", type=float, help="begin to measure at this time (seconds)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = mnist(arguments.data_dir) if arguments.dataset == "mnist" else digits()
    if arguments.images:
        repeats = -(-arguments.images // len(images))
        images = images.repeat(repeats, 1, 1, 1)[: arguments.images].contiguous()
    train, validation = fold(len(images), arguments.folds)
    try:
        run, fold_epochs = WAYS[arguments.way](arguments, images, train, validation)
    except ImportError as error:
        print(json.dumps({"way": arguments.way, "missing": str(error)}))
        return
    run()
    synchronise(arguments.device)
    if arguments.profile:
        print(json.dumps({"way": arguments.way, "shares": profile(run)}))
        return
    if arguments.start_at:
        time.sleep(max(0.0, arguments.start_at - time.time()))
    times = []
    for _ in range(1 if arguments.way == "lightning" else arguments.epochs):
        began = time.perf_counter()
        run()
        synchronise(arguments.device)
        times.append((time.perf_counter() - began) / fold_epochs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if arguments.device != "cpu":
        peak = torch.cuda.max_memory_allocated()
    measured = {
        "way": arguments.way,
        "architecture": arguments.architecture,
        "dataset": arguments.dataset,
        "images": len(images),
        "folds": arguments.folds,
        "members": arguments.members,
        "batch_size": arguments.batch_size,
        "threads": arguments.threads,
        "device": arguments.device,
        "precision": arguments.precision,
        "seconds_per_fold_epoch": statistics.fmean(times),
        "standard_deviation": statistics.stdev(times) if len(times) > 1 else None,
        "n": len(times),
        "peak_bytes": peak,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
