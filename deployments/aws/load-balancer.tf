resource "aws_lb" "service" {
  name                       = var.name
  load_balancer_type         = "application"
  internal                   = var.internal
  subnets                    = var.public_subnet_ids
  security_groups            = [aws_security_group.load_balancer.id]
  drop_invalid_header_fields = true
  # Refuses an ambiguous request instead of passing it on.
  desync_mitigation_mode     = "strictest"
  enable_deletion_protection = true
  # Below the service's idle timeout (75 s), so that the load balancer closes first.
  idle_timeout = 60
}

resource "aws_lb_target_group" "service" {
  name        = var.name
  target_type = "ip"
  vpc_id      = var.vpc_id
  protocol    = "HTTP"
  port        = 3000
  # As long as the service waits for answers in progress.
  deregistration_delay          = 25
  load_balancing_algorithm_type = "least_outstanding_requests"

  health_check {
    path              = "/ready"
    interval          = 10
    timeout           = 3
    healthy_threshold = 2
    # ECS replaces a task that fails this check, and a new one cannot reach the database either. So it must be longer than a
    # failover of the database takes. The container's own check replaces a task that does not answer at all.
    unhealthy_threshold = 10
  }
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.service.arn
  protocol          = "HTTPS"
  port              = 443
  certificate_arn   = var.certificate_arn
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.service.arn
  }
}

# Metrics are for the operator, inside the VPC.
resource "aws_lb_listener_rule" "metrics" {
  listener_arn = aws_lb_listener.https.arn
  priority     = 1

  condition {
    path_pattern {
      values = ["/metrics"]
    }
  }

  action {
    type = "fixed-response"
    fixed_response {
      status_code  = "404"
      content_type = "application/json"
      message_body = jsonencode({ code = "PGRST125", details = null, hint = null, message = "Invalid path specified in request URL" })
    }
  }
}

resource "aws_lb_listener" "http" {
  load_balancer_arn = aws_lb.service.arn
  protocol          = "HTTP"
  port              = 80

  default_action {
    type = "redirect"
    redirect {
      protocol    = "HTTPS"
      port        = "443"
      status_code = "HTTP_301"
    }
  }
}
