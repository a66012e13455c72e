import torch
from torch.nn import functional as F

from dassl.engine import TRAINER_REGISTRY, TrainerX

from clip import clip

from .context import load_clip_to_cpu


@TRAINER_REGISTRY.register()
class Handwritten(TrainerX):
    def build_model(self):
        self.clip_model = load_clip_to_cpu(self.cfg).float().to(self.device)
        names = [c.replace("_", " ") for c in self.dm.dataset.classnames]
        prompts = torch.cat([clip.tokenize("a photo of a {}.".format(name)) for name in names])
        with torch.no_grad():
            self.text = F.normalize(self.clip_model.encode_text(prompts.to(self.device)), dim=-1)

    def model_inference(self, image):
        images = F.normalize(self.clip_model.encode_image(image), dim=-1)
        return self.clip_model.logit_scale.exp() * images @ self.text.t()
