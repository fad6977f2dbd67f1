"""Make convolutional networks small and fast, with proof."""
