"""What `instseg doctor` looks at: findings about the machine, the weights, ROS and a running graph."""
