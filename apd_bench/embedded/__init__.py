"""The embedded instance: small image sets and two tiny CLIP backbones. See CARD.md."""
