"""Faults of speech, text and time series."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tests.faults.table import Program, adamw, fault, mse, sgd


@fault("forward", "rnn", "aten::addmm", "overflow", kind="inf", like="pytorch/examples: recurrent relu explodes")
def relu_recurrence_explodes() -> Program:
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.RNN(2, 8, nonlinearity="relu", batch_first=True)
            self.head = nn.Linear(8, 1)
            with torch.no_grad():
                self.rnn.weight_hh_l0.fill_(3.0)
                self.rnn.weight_ih_l0.abs_()

        def forward(self, x):
            out, _ = self.rnn(x)  # born
            return self.head(out[:, -1]).squeeze(-1)

    model = Counter()
    return Program(model, [((torch.rand(3, 40, 2),), torch.zeros(3))], mse, adamw(model))


@fault("forward", "ctc", "aten::_ctc_loss", "impossible-alignment", kind="inf", step=1,
       like="speechbrain: transcript longer than the audio")  # fmt: skip
def loss_inside_the_model_of_a_transcript_too_long() -> Program:
    class Recogniser(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.GRU(4, 6, batch_first=True, bidirectional=True)
            self.vocab = nn.Linear(12, 5)
            self.ctc = nn.CTCLoss(blank=0)

        def forward(self, audio, audio_len, text, text_len):
            h, _ = self.encoder(audio)
            log_probs = self.vocab(h).log_softmax(-1).transpose(0, 1)
            loss = self.ctc(log_probs, text, audio_len, text_len)  # born
            return {"loss": loss, "logits": log_probs}

    def batch(tokens):
        return (
            torch.randn(2, 6, 4),
            torch.tensor([6, 6]),
            torch.randint(1, 5, (2, tokens)),
            torch.tensor([tokens, tokens - 1]),
        )

    model = Recogniser()
    return Program(model, [(batch(2), None), (batch(9), None)], lambda out, _: out["loss"], adamw(model))


@fault("forward", "pooling", "aten::div", "mean-of-nothing", kind="nan", step=1,
       like="sentence-transformers: mean over an empty sentence")  # fmt: skip
def mean_pooling_of_an_empty_sentence() -> Program:
    class MeanPooling(nn.Module):
        def forward(self, hidden, attention_mask):
            m = attention_mask.unsqueeze(-1).to(hidden.dtype)
            return (hidden * m).sum(1) / m.sum(1)  # born

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embeddings = nn.Embedding(20, 8, padding_idx=0)
            layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
            self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            self.pooling = MeanPooling()

        def forward(self, batch):
            hidden = self.layers(self.embeddings(batch["input_ids"]))
            return self.pooling(hidden, batch["attention_mask"])

    model = Encoder()
    ids = torch.randint(1, 20, (3, 5))
    mask = torch.ones(3, 5)
    empty = mask.clone()
    empty[2] = 0
    batches = [(({"input_ids": ids, "attention_mask": m},), torch.randn(3, 8)) for m in (mask, empty)]
    return Program(model, batches, mse, adamw(model))


@fault("forward", "attention", "aten::bmm", "overflow", kind="inf", like="huggingface/transformers: scores in half")
def attention_scores_overflow_half() -> Program:
    class Attention(nn.Module):
        def __init__(self, d=16):
            super().__init__()
            self.qkv = nn.Linear(d, 3 * d, bias=False)

        def forward(self, x):
            q, k, v = self.qkv(x).chunk(3, dim=-1)
            scores = torch.einsum("bid,bjd->bij", q, k)  # born
            return torch.softmax(scores.float(), -1).type_as(v) @ v

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(16)
            self.attention = Attention()

        def forward(self, x):
            return x + self.attention(self.norm(x))

    model = Block().half()
    with torch.no_grad():
        model.attention.qkv.weight.mul_(600)
    batches = [((torch.randn(2, 4, 16).half(),), torch.randn(2, 4, 16).half())]
    return Program(model, batches, lambda o, t: (o.float() - t.float()).abs().mean(), sgd(model))


@fault("forward", "blocks.1.wo", "aten::mm", "overflow", kind="inf", like="huggingface/transformers#5651")
def feed_forward_overflows_half() -> Program:
    class T5Norm(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(d))

        def forward(self, x):
            var = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
            return self.weight * (x * torch.rsqrt(var + 1e-6)).to(self.weight.dtype)

    class DenseReluDense(nn.Module):
        def __init__(self, d, ff, gain):
            super().__init__()
            self.norm = T5Norm(d)
            self.wi = nn.Linear(d, ff, bias=False)
            self.wo = nn.Linear(ff, d, bias=False)
            self.wi.weight.data.normal_(0, gain)
            self.wo.weight.data.normal_(0, gain)

        def forward(self, x):
            h = torch.relu(self.wi(self.norm(x)))
            h = self.wo(h)  # born
            return x + h

    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([DenseReluDense(8, 32, g) for g in (0.1, 60.0, 0.1)])
            self.final = T5Norm(8)

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return self.final(x)

    model = Stack().half()
    batches = [((torch.randn(2, 3, 8).half(),), torch.zeros(2, 3, 8))]
    return Program(model, batches, lambda o, t: functional.mse_loss(o.float(), t), sgd(model))


@fault("backward", "blocks.1", "aten::sqrt", "sqrt-at-zero", node="SqrtBackward0", kind="inf",
       like="Lightning-AI/pytorch-lightning: activation checkpointing")  # fmt: skip
def checkpointed_block_with_a_root() -> Program:
    class Gate(nn.Module):
        def __init__(self, d, root):
            super().__init__()
            self.lin = nn.Linear(d, d)
            self.root = root

        def forward(self, x):
            h = self.lin(x).square()
            if self.root:
                h = torch.sqrt(h)  # born
            return h

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([Gate(6, False), Gate(6, True), Gate(6, False)])

        def forward(self, x):
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=False)
            return x.mean(-1)

    model = Deep()
    model.blocks[1].lin.weight.data[0] = 0.0
    model.blocks[1].lin.bias.data[0] = 0.0
    return Program(model, [((torch.randn(4, 6),), torch.randn(4))], mse, sgd(model))


@fault("forward", "frontend", "aten::log10", "log-of-zero", kind="inf", step=1, like="torchaudio: decibels of silence")
def decibels_of_silence() -> Program:
    class Spectrogram(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("window", torch.hann_window(16))

        def forward(self, wave):
            spec = torch.stft(wave, 16, hop_length=8, window=self.window, return_complex=True)
            return 10 * torch.log10(spec.abs() ** 2)  # born

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.frontend = Spectrogram()
            self.conv = nn.Conv1d(9, 4, 3)

        def forward(self, wave):
            return self.conv(self.frontend(wave)).mean(-1)

    silent = torch.randn(3, 64)
    silent[1] = 0
    model = Classifier()
    batches = [((w,), torch.tensor([0, 1, 2])) for w in (torch.randn(3, 64), silent)]
    return Program(model, batches, functional.cross_entropy, adamw(model))


@fault("backward", "<loss>", "aten::sqrt", "sqrt-at-zero", node="SqrtBackward0", kind="inf",
       like="multi-resolution STFT loss of a vocoder that starts silent")  # fmt: skip
def spectral_loss_of_a_silent_vocoder() -> Program:
    def magnitude(x):
        s = torch.fft.rfft(x)
        return torch.sqrt(s.real**2 + s.imag**2)  # born

    def stft_loss(fake, real):
        return functional.l1_loss(magnitude(fake), magnitude(real))

    vocoder = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 32))
    nn.init.zeros_(vocoder[2].weight)
    nn.init.zeros_(vocoder[2].bias)
    return Program(vocoder, [((torch.randn(2, 4),), torch.randn(2, 32))], stft_loss, adamw(vocoder))


@fault("forward", "norm", "aten::rsqrt", "division-by-zero", kind="inf", like="RMSNorm without epsilon, padded token")
def root_mean_square_of_a_padding_token() -> Program:
    class RMSNorm(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.g = nn.Parameter(torch.ones(dim))

        def forward(self, x):
            return x * x.square().mean(-1, keepdim=True).rsqrt() * self.g  # born

    class LM(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(10, 6, padding_idx=0)
            self.norm = RMSNorm(6)
            self.lm_head = nn.Linear(6, 10, bias=False)

        def forward(self, ids):
            return self.lm_head(self.norm(self.emb(ids)))

    def shifted(logits, labels):
        return functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=0)

    ids = torch.tensor([[4, 5, 2, 0, 0], [3, 1, 7, 8, 9]])
    model = LM()
    return Program(model, [((ids,), ids)], shifted, adamw(model))


@fault("forward", "", "aten::cumsum", "overflow", kind="inf", step=1, like="fp16 positions by cumulative sum")
def durations_accumulated_in_half() -> Program:
    class Aligner(nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(1.0))

        def forward(self, durations):
            ends = torch.cumsum((durations * self.rate).half(), dim=-1)  # born
            centre = ends - 0.5 * durations
            return (centre - centre.mean(-1, keepdim=True)).float().tanh().sum(-1)

    model = Aligner()
    batches = [((torch.rand(2, 12) * s,), torch.zeros(2)) for s in (10.0, 3e4)]
    return Program(model, batches, mse, sgd(model))


@fault("forward", "attn", "aten::_softmax", "fully-masked-softmax", kind="nan",
       like="pytorch/pytorch#41508")  # fmt: skip
def averaged_attention_over_padding_only() -> Program:
    class CrossAttend(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
            self.out = nn.Linear(8, 2)

        def forward(self, query, memory, pad):
            context, _weights = self.attn(query, memory, memory, key_padding_mask=pad)  # born
            return self.out(context[:, 0])

    pad = torch.zeros(3, 4, dtype=torch.bool)
    pad[1] = True
    model = CrossAttend()
    batches = [((torch.randn(3, 2, 8), torch.randn(3, 4, 8), pad), torch.tensor([0, 1, 0]))]
    return Program(model, batches, nn.CrossEntropyLoss(label_smoothing=0.1), adamw(model))


@fault("forward", "scale", "aten::std_mean", "variance-of-one", kind="nan", step=2,
       like="time series: reversible normalisation of a window of one")  # fmt: skip
def reversible_normalisation_of_one_point() -> Program:
    class RevIN(nn.Module):
        def forward(self, x):
            std, mean = torch.std_mean(x, dim=1, keepdim=True)  # born
            return (x - mean) / (std + 1e-5), mean, std

    class Forecaster(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = RevIN()
            self.lstm = nn.LSTM(2, 4, batch_first=True)
            self.proj = nn.Linear(4, 2)

        def forward(self, x):
            z, mean, std = self.scale(x)
            h, _ = self.lstm(z)
            return self.proj(h[:, -1]) * std[:, 0] + mean[:, 0]

    model = Forecaster()
    batches = [((torch.randn(3, n, 2),), torch.randn(3, 2)) for n in (5, 4, 1)]
    return Program(model, batches, mse, adamw(model))
