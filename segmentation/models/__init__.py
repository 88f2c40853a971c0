"""segmentation/models"""
