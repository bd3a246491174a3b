"""mmcv's operators from their definitions, as slowly and plainly as one likes; torch derives the gradients.

The functions have the names and arguments of mmcv's public ones.
"""

import itertools
import math

import torch


def _overlap(a, b, offset=0):
    width = (min(a[2], b[2]) - max(a[0], b[0]) + offset).clamp(min=0)
    height = (min(a[3], b[3]) - max(a[1], b[1]) + offset).clamp(min=0)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def nms(boxes, scores, iou_threshold, offset=0):
    kept = []
    for i in scores.argsort(descending=True).tolist():
        if all(_overlap(boxes[i], boxes[k], offset) <= iou_threshold for k in kept):
            kept.append(i)
    return torch.cat([boxes[kept], scores[kept, None]], 1), torch.tensor(kept)


def soft_nms(boxes, scores, iou_threshold=0.3, sigma=0.5, min_score=1e-3, method='linear', offset=0):
    scores, left, kept, final = scores.tolist(), list(range(len(boxes))), [], []
    while left:
        best = max(left, key=lambda i: scores[i])
        left.remove(best)
        kept.append(best)
        final.append(scores[best])
        for i in list(left):
            overlap = float(_overlap(boxes[best], boxes[i], offset))
            if method == 'gaussian':
                scores[i] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= iou_threshold:
                scores[i] *= 1 - overlap if method == 'linear' else 0
            if scores[i] < min_score:
                left.remove(i)
    return torch.cat([boxes[kept], torch.tensor(final)[:, None]], 1), torch.tensor(kept)


def nms_match(dets, iou_threshold):
    groups = []
    for i in dets[:, 4].argsort(descending=True).tolist():
        for group in groups:
            if _overlap(dets[group[0]], dets[i]) >= iou_threshold:
                group.append(i)
                break
        else:
            groups.append([i])
    return [torch.tensor(group) for group in groups]


def _sample(image, y, x):
    """Bilinear value of (C, H, W) at a point; pixels outside are 0."""
    _, H, W = image.shape
    y0, x0 = math.floor(y), math.floor(x)
    value = 0
    for i, j in itertools.product((y0, y0 + 1), (x0, x0 + 1)):
        if 0 <= i < H and 0 <= j < W:
            value = value + image[:, i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return value if torch.is_tensor(value) else image.new_zeros(len(image))


def roi_align(input, rois, output_size, spatial_scale=1.0, sampling_ratio=0, pool_mode='avg', aligned=True):
    (rows, columns), regions = output_size, []
    H, W = input.shape[2:]
    for image, *corners in rois.tolist():
        x1, y1, x2, y2 = (corner * spatial_scale - 0.5 * aligned for corner in corners)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        samples_y = sampling_ratio or math.ceil(height / rows)
        samples_x = sampling_ratio or math.ceil(width / columns)
        region = []
        for row, column in itertools.product(range(rows), range(columns)):
            values = [torch.zeros(input.shape[1])]
            for i, j in itertools.product(range(samples_y), range(samples_x)):
                y = y1 + height / rows * (row + (i + 0.5) / samples_y)
                x = x1 + width / columns * (column + (j + 0.5) / samples_x)
                if -1 <= y <= H and -1 <= x <= W:  # at the border the outermost pixels go on
                    values.append(_sample(input[int(image)], min(max(y, 0), H - 1), min(max(x, 0), W - 1)))
            region.append(torch.stack(values).sum(0) / max(samples_y * samples_x, 1))
        regions.append(torch.stack(region, 1).view(-1, rows, columns))
    return torch.stack(regions)


def _bilinear(image, y, x):
    """Bilinear values of (C, H, W) at points (...) that have gradients; pixels outside are 0."""
    _, H, W = image.shape
    y0, x0 = y.detach().floor(), x.detach().floor()
    value = 0
    for i, j in itertools.product((0, 1), (0, 1)):
        row, column = y0 + i, x0 + j
        inside = (row >= 0) & (row < H) & (column >= 0) & (column < W)
        pixel = image[:, row.long().clamp(0, H - 1), column.long().clamp(0, W - 1)] * inside
        value = value + pixel * (1 - (y - row).abs()) * (1 - (x - column).abs())
    return value


def modulated_deform_conv2d(input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups):
    N, C, _, _ = input.shape
    out_channels, channels, rows, columns = weight.shape
    height, width = (
        (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel in zip(input.shape[2:], (rows, columns))
    )
    # Those of a larger map are read as a row of numbers.
    count = deform_groups * rows * columns * height * width
    offset = offset.flatten(1)[:, : 2 * count].view(N, deform_groups, rows * columns, 2, height, width)
    mask = mask.flatten(1)[:, :count].view(N, deform_groups, rows * columns, height, width)
    top = torch.arange(height)[:, None] * stride - padding
    left = torch.arange(width)[None] * stride - padding
    seen = []  # per image: (C, P, height, width)
    for n, g in itertools.product(range(N), range(deform_groups)):
        of_group = input[n].view(deform_groups, C // deform_groups, *input.shape[2:])[g]
        points = []
        for p in range(rows * columns):
            y = top + p // columns * dilation + offset[n, g, p, 0]
            x = left + p % columns * dilation + offset[n, g, p, 1]
            points.append(_bilinear(of_group, y, x) * mask[n, g, p])
        seen.append(torch.stack(points, 1))
    seen = torch.cat(seen).view(N, groups, C // groups * rows * columns, height, width)
    kernel = weight.view(groups, out_channels // groups, channels * rows * columns)
    output = torch.einsum('gok,ngkhw->ngohw', kernel, seen).reshape(N, out_channels, height, width)
    return output if bias is None else output + bias.view(-1, 1, 1)


def deform_conv2d(input, offset, weight, stride, padding, dilation, groups, deform_groups):
    mask = torch.ones(len(offset), offset.shape[1] // 2, *offset.shape[2:])
    return modulated_deform_conv2d(input, offset, mask, weight, None, stride, padding, dilation, groups, deform_groups)


def psa_mask(input, psa_type, mask_size):
    N, _, H, W = input.shape
    rows, columns = mask_size
    masks = input.view(N, rows, columns, H, W)
    output = torch.zeros(N, H * W, H * W)
    for (h, w), (i, j) in itertools.product(
        itertools.product(range(H), range(W)), itertools.product(range(rows), range(columns))
    ):
        y, x = h + i - (rows - 1) // 2, w + j - (columns - 1) // 2
        if 0 <= y < H and 0 <= x < W:
            here, there = h * W + w, y * W + x
            output[(slice(None), here, there) if psa_type else (slice(None), there, here)] = masks[:, i, j, h, w]
    return output.view(N, H * W, H, W)


def sigmoid_focal_loss(input, target, gamma=2.0, alpha=0.25, weight=None, reduction='mean'):
    one_hot = torch.nn.functional.one_hot(target, input.shape[1] + 1)[:, :-1]
    p = input.sigmoid()
    p, alpha = torch.where(one_hot == 1, p, 1 - p), torch.where(one_hot == 1, alpha, 1 - alpha)
    loss = -alpha * (1 - p) ** gamma * p.log()
    return _reduced(loss if weight is None else loss * weight[target.clamp(max=len(weight) - 1)][:, None], reduction)


def _reduced(loss, reduction):
    return loss if reduction == 'none' else loss.sum() / (len(loss) if reduction == 'mean' else 1)


def masked_conv2d(features, mask, weight, bias, padding):
    return torch.nn.functional.conv2d(features, weight, bias, padding=padding) * (mask > 0)


def multi_scale_deformable_attention(value, shapes, locations, weights):
    """Multi-scale deformable attention: (N, tokens, heads, d), [(H, W)], (N, queries, heads, levels, points, 2)."""
    N, _, heads, d = value.shape
    output = []
    for n, query in itertools.product(range(N), range(locations.shape[1])):
        for head in range(heads):
            start, total = 0, 0
            for level, (H, W) in enumerate(shapes):
                image = value[n, start : start + H * W, head].T.view(d, H, W)
                start += H * W
                x, y = (locations[n, query, head, level, :, k] * size - 0.5 for k, size in enumerate((W, H)))
                total = total + (_bilinear(image, y, x) * weights[n, query, head, level]).sum(-1)
            output.append(total)
    return torch.stack(output).view(N, -1, heads * d)
