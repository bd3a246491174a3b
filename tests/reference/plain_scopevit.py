"""ScopeViT written down plainly, to compare the fast one with.

Everything follows the definition literally: one loop per group, token and head where that is
how the function is described, no fused kernels, no reshaping tricks, no padding inside GSDA.
It reads the weights of a :class:`scopevit.models.ScopeViT` by name and runs in evaluation mode.

Shape legend: B batch, C channels, H W height and width, h heads, d = C/h.
"""

import math

import torch
import torch.nn.functional as F


class PlainScopeViT:
    """The function of a ScopeViT, computed from its weights.

    Args:
        weights: State dict of a ScopeViT whose stages are all built.
        arch: Dict with embed_dims, depths, scope_heads, kv_strides, and grid_size.
    """

    def __init__(self, weights, arch):
        self.w = weights
        self.arch = arch

    def __call__(self, image):
        """(B, C, H, W) -> list of every stage's map."""
        features = []
        x = image
        for s, depth in enumerate(self.arch['depths']):
            x = self.patch_embed(x, s)
            for i in range(depth):
                block = f'stages.{s}.blocks.{i}'
                for kind in ('mssa', 'gsda'):
                    name = f'{block}.{kind}'
                    attention = self.mssa if kind == 'mssa' else self.gsda
                    x = x + self.scaled(
                        attention(self.layer_norm(x, f'{name}.norm1'), f'{name}.attn', s), f'{name}.ls1'
                    )
                    x = x + self.scaled(self.mlp(self.layer_norm(x, f'{name}.norm2'), f'{name}.mlp'), f'{name}.ls2')
            x = self.batch_norm(x, f'stages.{s}.norm')
            features.append(x)
        return features

    # Parts. All take and give maps (B, C, H, W).

    def patch_embed(self, x, stage):
        name = f'stages.{stage}.patch_embed'
        x = self.batch_norm(self.conv(x, f'{name}.0', stride=2, padding=1), f'{name}.1')
        if stage == 0:
            x = self.gelu(x)
            x = self.batch_norm(self.conv(x, f'{name}.3', stride=2, padding=1), f'{name}.4')
        return x

    def mssa(self, x, name, stage):
        B, C, H, W = x.shape
        heads = sum(self.arch['scope_heads'][stage])
        d = C // heads
        stride = self.arch['kv_strides'][stage]
        u = self.positional_encoding(x, f'{name}.cpe')
        q = self.linear(u, f'{name}.query')
        embedded, first = [], 0
        for kernel, scope_heads in zip((7, 5, 3), self.arch['scope_heads'][stage]):
            width = scope_heads * d
            if width:
                part = u[:, first : first + width]
                padding = math.floor(((stride - 1) + (kernel - 1)) / 2)
                weight = self.w[f'{name}.scopes.{kernel}x{kernel}.weight']
                embedded.append(F.conv2d(part, weight, stride=stride, padding=padding, groups=width))
            first += width
        kv = self.linear(torch.cat(embedded, dim=1), f'{name}.key_value')
        k, v = kv[:, :C], kv[:, C:]
        out = torch.zeros_like(x)
        for b in range(B):
            for head in range(heads):
                c = slice(head * d, (head + 1) * d)
                out[b, c] = self.attend(
                    q[b, c].reshape(d, -1).T, k[b, c].reshape(d, -1).T, v[b, c].reshape(d, -1).T, bias=0.0
                ).T.reshape(d, H, W)
        return self.linear(out, f'{name}.proj')

    def gsda(self, x, name, stage):
        B, C, H, W = x.shape
        g = self.arch['grid_size']
        heads = sum(self.arch['scope_heads'][stage])
        d = C // heads
        qkv = self.linear(x, f'{name}.qkv')
        rows_apart, cols_apart = math.ceil(H / g), math.ceil(W / g)
        out = torch.zeros_like(x)
        for group_row in range(rows_apart):
            for group_col in range(cols_apart):
                # The real tokens of this group and where each sits on the grid.
                tokens = [
                    (r, c)
                    for r in range(H)
                    for c in range(W)
                    if r % rows_apart == group_row and c % cols_apart == group_col
                ]
                if not tokens:
                    continue
                grid = [(r // rows_apart, c // cols_apart) for r, c in tokens]
                bias = self.position_bias(grid, f'{name}.rel_pos')  # (T, T, h)
                r = torch.tensor([t[0] for t in tokens])
                c = torch.tensor([t[1] for t in tokens])
                for head in range(heads):
                    q, k, v = (
                        qkv[:, part * C + head * d : part * C + (head + 1) * d][:, :, r, c].transpose(1, 2)
                        for part in range(3)
                    )
                    result = self.attend(q, k, v, bias[:, :, head])
                    for b in range(B):
                        out[b, head * d : (head + 1) * d, r, c] = result[b].T
        return self.linear(out, f'{name}.proj')

    def position_bias(self, grid, name):
        """(T, T, h): row i of it is for query i, column j for key j."""
        pairs = [[(yi - yj, xi - xj) for yj, xj in grid] for yi, xi in grid]
        dtype = self.w[f'{name}.fc1.weight'].dtype
        log = torch.tensor(
            [[[math.copysign(math.log(1 + abs(t)), t) for t in pair] for pair in row] for row in pairs], dtype=dtype
        )
        hidden = torch.clamp(log @ self.w[f'{name}.fc1.weight'].T + self.w[f'{name}.fc1.bias'], min=0)
        return hidden @ self.w[f'{name}.fc2.weight'].T + self.w[f'{name}.fc2.bias']

    def positional_encoding(self, x, name):
        y = torch.clamp(self.batch_norm(self.conv(x, f'{name}.expand.0'), f'{name}.expand.1'), min=0)
        depthwise = F.conv2d(y, self.w[f'{name}.depthwise.0.weight'], padding=1, groups=y.shape[1])
        y = torch.clamp(self.batch_norm(depthwise, f'{name}.depthwise.1'), min=0)
        return x + self.batch_norm(self.conv(y, f'{name}.project.0'), f'{name}.project.1')

    def mlp(self, x, name):
        return self.linear(self.gelu(self.linear(x, f'{name}.fc1')), f'{name}.fc2')

    # Formulas.

    @staticmethod
    def attend(q, k, v, bias):
        """Softmax attention of queries (..., T, d) over keys and values (..., M, d)."""
        logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias
        weights = torch.exp(logits - logits.amax(dim=-1, keepdim=True))
        return weights / weights.sum(dim=-1, keepdim=True) @ v

    @staticmethod
    def gelu(x):
        return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))

    def conv(self, x, name, stride=1, padding=0):
        return F.conv2d(x, self.w[f'{name}.weight'], self.w.get(f'{name}.bias'), stride=stride, padding=padding)

    def linear(self, x, name):
        y = torch.einsum('oc,bchw->bohw', self.w[f'{name}.weight'], x)
        bias = self.w.get(f'{name}.bias')
        return y if bias is None else y + bias[:, None, None]

    def batch_norm(self, x, name):
        mean, var = self.w[f'{name}.running_mean'], self.w[f'{name}.running_var']
        scale = self.w[f'{name}.weight'] / torch.sqrt(var + 1e-5)
        return (x - mean[:, None, None]) * scale[:, None, None] + self.w[f'{name}.bias'][:, None, None]

    def layer_norm(self, x, name):
        mean = x.mean(dim=1, keepdim=True)
        var = ((x - mean) ** 2).mean(dim=1, keepdim=True)
        y = (x - mean) / torch.sqrt(var + 1e-5)
        return y * self.w[f'{name}.weight'][:, None, None] + self.w[f'{name}.bias'][:, None, None]

    def scaled(self, x, name):
        return x * self.w[f'{name}.gamma'][:, None, None]
