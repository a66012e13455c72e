import os
import pickle

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from safeio.files import listdir_nohidden, mkdir_if_missing


@DATASET_REGISTRY.register()
class TheirSquares(DatasetBase):
    dataset_dir = "squares"

    def __init__(self, cfg):
        root = os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT))
        self.dataset_dir = os.path.join(root, self.dataset_dir)
        self.image_dir = os.path.join(self.dataset_dir, "images")
        self.split_fewshot_dir = os.path.join(self.dataset_dir, "split_fewshot")
        mkdir_if_missing(self.split_fewshot_dir)
        items = []
        for label, name in enumerate(sorted(listdir_nohidden(self.image_dir))):
            folder = os.path.join(self.image_dir, name)
            for image in sorted(listdir_nohidden(folder)):
                items.append(Datum(os.path.join(folder, image), label, classname=name))
        train, val, test = items[::2], items[1::4], items[3::4]
        num_shots, seed = cfg.DATASET.NUM_SHOTS, cfg.SEED
        if num_shots >= 1:
            drawn = os.path.join(self.split_fewshot_dir, "shot_%d-seed_%d.pkl" % (num_shots, seed))
            if os.path.exists(drawn):
                print("Loading preprocessed few-shot data from {}".format(drawn))
                with open(drawn, "rb") as file:
                    data = pickle.load(file)
                    train, val = data["train"], data["val"]
            else:
                train = self.generate_fewshot_dataset(train, num_shots=num_shots)
                val = self.generate_fewshot_dataset(val, num_shots=min(num_shots, 4))
                with open(drawn, "wb") as file:
                    data = {"train": train, "val": val}
                    pickle.dump(data, file, protocol=pickle.HIGHEST_PROTOCOL)
        super().__init__(train_x=train, val=val, test=test)
