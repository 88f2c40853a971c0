"""segmentation/doubt"""
