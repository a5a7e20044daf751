"""ROS nodes: conversion, parameters, queues and publishing; no maths."""
